"""Requests that are ready at the same time are handled together, and none of them waits for more than there are."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from inferry_server.rpc.call import Arrived
from inferry_server.rpc.router import Router
from testkit import onnx_models
from testkit.clock import ManualClock
from testkit.played_grpc import PlayedGrpc, played_server
from testkit.rpc import infer_request

POLL_S = 1e-5  # that a poll takes here


class SlowGrpc(PlayedGrpc):
    """Each poll takes a little."""

    clock: ManualClock
    poll_s = POLL_S

    def poll(self, until: float) -> SimpleNamespace:
        self.clock.advance(self.poll_s)
        return super().poll(until)


def handled(folder: Path, requests: int, poll_s: float = POLL_S) -> list[list[float]]:
    """For how long each request has waited as it was handled, by those that were handled together."""
    onnx_models.save_doubler(folder)
    played = SlowGrpc(infer_request("doubler", x=np.ones((1, 3), np.float32)).SerializeToString(), requests)
    played.clock, played.poll_s = ManualClock(), poll_s
    together: list[list[float]] = []
    original = Router.handle_alike

    def handle_alike(router: Router, arrived: Sequence[Arrived]) -> None:
        together.append([call.waited_s for call, _ in arrived])
        original(router, arrived)

    with (
        mock.patch.object(Router, "handle_alike", handle_alike),
        played_server(played, folder, clock=played.clock) as transport,
    ):
        played.play(transport, lambda: True)
    return together


def test_what_is_ready_is_handled_together_but_sixteen_at_once(tmp_path: Path) -> None:
    assert [len(some) for some in handled(tmp_path, 40)] == [16, 16, 8]


def test_requests_that_came_at_once_have_waited_as_long_when_they_are_handled(tmp_path: Path) -> None:
    """One whose call was let in later was gathered later too: both count."""
    [waited] = handled(tmp_path, 5)
    assert waited == pytest.approx([waited[0]] * 5)
    assert waited[0] >= 4 * POLL_S


def test_while_other_events_come_none_waits_for_long(tmp_path: Path) -> None:
    assert [len(some) for some in handled(tmp_path, 12, poll_s=0.0004)] == [4, 4, 4]
