"""A run that takes too long is ended; others, before it and after it, are not."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from inferry_proto.datatypes import Arrays
from inferry_server.errors import InferenceError
from inferry_server.runtime.limited_runs import LimitedRuns, RunTooLongError
from testkit.waiting import SOON_S

X = {"x": np.zeros(1)}


class Session:
    """Computes for so many seconds, while another thread looks every second."""

    def __init__(self) -> None:
        self.now, self.takes_s, self.interrupted = 0.0, 0.0, 0
        self.fails = False
        self.look: Callable[[], None] = lambda: None

    def run(self, inputs: Arrays) -> Arrays:
        until, before = self.now + self.takes_s, self.interrupted
        while self.now < until:
            self.now += 1
            self.look()
            if self.interrupted > before:
                raise InferenceError("terminated")
        if self.fails:
            raise InferenceError("no")
        return inputs

    def interrupter(self) -> Callable[[], None]:
        def end() -> None:
            self.interrupted += 1

        return end


def test_only_the_run_that_takes_too_long_is_ended() -> None:
    session = Session()
    limited = LimitedRuns(session, 5, clock=lambda: session.now)
    session.look = limited.look
    for takes_s, interrupted in ((4, 0), (1000, 1), (4, 1), (6, 2), (0, 2)):
        session.takes_s = takes_s
        if takes_s > 5:
            with pytest.raises(RunTooLongError, match="longer than 5 s"):
                limited.run(X)
        else:
            assert limited.run(X) is X
        assert session.interrupted == interrupted
        session.now += 100
        limited.look()
        assert session.interrupted == interrupted  # nothing is under way
    session.fails = True
    with pytest.raises(InferenceError, match="no") as raised:
        limited.run(X)
    assert not isinstance(raised.value, RunTooLongError)


class Hanging:
    """Computes until it is interrupted."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def run(self, inputs: Arrays) -> Arrays:
        assert self.ended.wait(SOON_S)
        raise InferenceError("terminated")

    def interrupter(self) -> Callable[[], None]:
        return self.ended.set


def test_a_thread_looks_until_the_end() -> None:
    with LimitedRuns(Hanging(), 0.02) as limited, pytest.raises(RunTooLongError):
        limited.run(X)
    assert "limited-runs" not in [thread.name for thread in threading.enumerate()]
