"""Threads whose joined calls are answered wake one another, in a row that loses nobody."""

import threading
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from inferry_client import Batching, Client
from inferry_client.calling import joined_threads
from inferry_client.calling.joining import Waiting, deliver
from inferry_client.messages import requests


class Row:
    """Answered callers of a joiner that are woken one after the other; `woken` names those that were."""

    def __init__(self) -> None:
        session = Client("127.0.0.1:1")._session
        session._batch_limits["m", ""] = 8
        self.joiner = joined_threads.ThreadJoiner(Batching(), session, lambda _: None)
        self.woken: list[str] = []

    def answer(self, *names: str) -> list[Waiting]:
        """Have a request of these callers end."""
        call = requests.infer("m", {"x": np.zeros((1, 1), np.int64)})
        assert call.joint
        locks = [SimpleNamespace(release=partial(self.woken.append, name)) for name in names]
        callers = [Waiting(call, call.joint, 1.0, 1.0, lock) for lock in locks]
        for caller in callers:
            self.joiner._joiner.add(caller)
        assert self.joiner._joiner.reserve()
        batch, _ = self.joiner._take()
        self.joiner._settle(batch, partial(deliver, shares=names), began=0.0)
        return callers


def test_callers_of_two_requests_are_woken_one_after_the_other() -> None:
    row = Row()
    row.answer("first", "second")
    row.answer("third")
    assert row.woken == ["first"]
    for woken in ("second", "third"):
        row.joiner._wake_next()
        assert row.woken[-1] == woken
    assert not row.joiner._joiner.reserve_alone(), "the third may ask again, and travel with others"
    row.joiner._wake_next()
    assert row.joiner._joiner.reserve_alone(), "a request's place was not given back"
    row.answer("fourth")
    assert row.woken == ["first", "second", "third", "fourth"]


def test_a_caller_that_leaves_while_it_is_woken_wakes_the_next() -> None:
    row = Row()
    for caller in row.answer("first", "second"):
        row.joiner._leave(caller)
    assert row.woken == ["first", "second"]
    assert row.joiner._joiner.reserve_alone(), "the request's place was not given back"


def test_a_caller_that_wakes_nobody_keeps_the_others_no_longer_than_their_time() -> None:
    row = Row()
    _, impatient, _ = row.answer("ended", "impatient", "patient")
    row.joiner._leave(impatient)
    assert row.woken == ["ended", "patient"]
    row.joiner._wake_next()
    assert row.joiner._joiner.reserve_alone(), "the request's place was not given back"
    row.answer("later")
    assert row.woken[-1] == "later"


def test_an_idle_sender_wakes_callers_whom_an_interrupted_one_left_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined_threads, "_IDLE_S", 0.01)
    row, called = Row(), threading.Lock()
    row.answer("interrupted", "other")
    called.acquire()
    assert not row.joiner._is_called(called)
    assert row.woken == ["interrupted", "other"]
    assert not row.joiner._is_called(called)
    assert row.joiner._joiner.reserve_alone(), "the request's place was not given back"
