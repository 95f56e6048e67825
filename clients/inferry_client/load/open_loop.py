"""An open loop: requests leave when the schedule says, however the server answers.

So many callers as come in a second do not wait for each other. A server that stops for two seconds
is asked all the same, and every request of those seconds counts with what it waited; in a closed
loop the users wait with it, and the stop hardly shows.
"""

import asyncio
import gc
import selectors
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_client.connecting.channels import open_async_channel
from inferry_client.connecting.connection import BareChannel
from inferry_client.errors import InferryError
from inferry_client.load.open_calls import Caller, open_caller
from inferry_client.load.payloads import Payloads
from inferry_client.load.records import OUTCOMES, Records, make_records
from inferry_client.load.summary import outcome_of


@dataclass(frozen=True)
class Sending:
    """How a process sends its part of a schedule.

    Attributes:
        channels: to be opened; requests go round them.
        payloads: requests go round them too.
        timeout_s: of every request, from when it leaves.
        begin: called when everything is connected; gives the start on the monotonic clock, which
            all processes of a machine share.
        late_s: an answer that takes longer counts as late; None: none does.
        most_late: when more requests are late, refused or failed, the rest is not sent.
    """

    channels: tuple[BareChannel, ...]
    payloads: Payloads
    timeout_s: float
    begin: Callable[[], float]
    late_s: float | None = None
    most_late: float = float("inf")


def send(times: NDArray[np.float64], sending: Sending) -> Records:
    """Send requests at these times, in seconds from the start, and wait for the last answer."""
    gc.collect()
    gc.disable()  # a collection would hold up what is due; nothing here makes cycles
    try:
        with asyncio.Runner(loop_factory=_new_timely_loop) as runner:
            return runner.run(_OpenLoop(sending).run(times))
    finally:
        gc.enable()


def _new_timely_loop() -> asyncio.AbstractEventLoop:
    """An event loop that sleeps to the microsecond. That of epoll, the usual one, rounds up to milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


class _OpenLoop:
    """One process's part of a test."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending
        self._rows: list[tuple[float, float, float, int]] = []
        self._errors: Counter[str] = Counter()
        self._bad = 0
        self._start = 0.0

    async def run(self, times: NDArray[np.float64]) -> Records:
        sending = self._sending
        channels = [open_async_channel(bare.address, bare.settings, bare.credentials) for bare in sending.channels]
        callers = [
            open_caller(channel, bare, sending.payloads, timeout_s=sending.timeout_s)
            for channel, bare in zip(channels, sending.channels, strict=True)
        ]
        tasks: set[asyncio.Task[None]] = set()
        try:
            await self._connect(callers)
            self._start = sending.begin()
            for number, scheduled in enumerate(times.tolist()):
                await self._sleep_until(scheduled)
                if self._bad > sending.most_late:
                    break  # what is searched for is found: this rate is not held
                task = asyncio.create_task(self._ask(callers[number % len(callers)], number, scheduled))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            if tasks:
                await asyncio.wait(tasks)
        finally:
            for channel in channels:
                await channel.close()
        return make_records(self._rows, self._errors)

    async def _connect(self, callers: list[Caller]) -> None:
        """One request on each connection, which no figure counts."""
        for caller in callers:
            with suppress(InferryError):  # the test will tell
                await caller.ask(0)

    async def _sleep_until(self, scheduled: float) -> None:
        while (left_s := self._start + scheduled - time.monotonic()) > 0:
            await asyncio.sleep(left_s)

    async def _ask(self, caller: Caller, number: int, scheduled: float) -> None:
        sending = self._sending
        index = number % len(sending.payloads.requests)
        failure: InferryError | None = None
        reply: Any = None
        sent = time.monotonic() - self._start
        try:
            reply = await caller.ask(index)
        except InferryError as error:
            failure = error
        ended = time.monotonic() - self._start
        if failure is None:
            try:
                caller.check(reply, index)
            except InferryError as error:
                failure = error
        if failure:
            self._errors[str(failure)] += 1
        late = sending.late_s is not None and ended - scheduled > sending.late_s
        self._bad += bool(failure or late)
        self._rows.append((scheduled, sent, ended, OUTCOMES.index(outcome_of(failure))))
