"""grpc.aio, whose handlers hold new calls until those before are answered."""

import asyncio

import pytest

from inferry_server.rpc.router import Router
from inferry_server.rpc.statuses import OK
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport import aio
from inferry_server.transport.aio import _GenericHandler
from testkit.waiting import SOON_S


def test_calls_are_held_until_every_answer_has_gone_that_is_owed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "_QUIET_S", 0.0)
    router = Router(ServerMetrics())
    router.add_unary({"/a/B": lambda *_: None})
    accounts = [router.received("/a/B", ()) for _ in range(3)]

    async def answer() -> None:
        while accounts:
            await asyncio.sleep(0)
            accounts.pop().ended(OK)

    async def hold() -> int:
        answering = asyncio.ensure_future(answer())
        await _GenericHandler(router, asyncio.get_running_loop()).hold_until_quiet(SOON_S)
        owed = router.unary_in_flight()
        await answering
        return owed

    assert asyncio.run(hold()) == 0
