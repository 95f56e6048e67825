"""Joined requests of threads: whoever finds none under way sends for all that wait."""

import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from inferry_client.calling.calls import Session
from inferry_client.calling.joining import Batching, Joiner, Waiting, deliver, fail, join
from inferry_client.errors import InferryError, error_from_silence
from inferry_client.messages.call import Call


class ThreadJoiner:
    """Carries out joined calls on their callers' threads; it has none of its own.

    A caller blocks until its call is answered, or its time is up. One lock guards the waiting
    calls; nothing is sent while it is held.

    Args:
        settings: how to join.
        session: of the client.
        send: makes one call, now.
    """

    def __init__(self, settings: Batching, session: Session, send: Callable[[Call[Any]], Any]) -> None:
        self._joiner = Joiner(settings)
        self._session = session
        self._send = send
        self._lock = threading.Lock()

    def run(self, call: Call[Any]) -> Any:
        """The result of a call, whoever's request it travelled in."""
        assert call.joint is not None  # noqa: S101 - its caller looked
        timeout_s = self._session.timeout_s if call.timeout_s is None else call.timeout_s
        deadline = time.monotonic() + timeout_s
        woken: queue.SimpleQueue[None] = queue.SimpleQueue()  # an event costs three times as much
        mine = Waiting(call, call.joint(), timeout_s, partial(woken.put, None))
        with self._lock:
            self._joiner.add(mine)
            mine.lead = self._joiner.take(self._limit)
        while not mine.answered:
            if mine.lead:
                self._lead(mine)
            elif not _woken(woken, deadline - time.monotonic()):
                self._give_up(mine, timeout_s)
        while mine.lead:  # handed over while the answer came
            self._lead(mine)
        if mine.alone:
            return self._send(call)
        if mine.error:
            raise mine.error
        return mine.result

    def _lead(self, mine: Waiting) -> None:
        batch, mine.lead = mine.lead, None
        assert batch is not None  # noqa: S101 - its caller looked
        try:
            deliver(batch, self._send(join(batch)))
        except InferryError as error:
            fail(batch, error)
        except BaseException as error:
            fail(batch, InferryError(f"the joined request failed: {error}"))
            raise
        finally:
            with self._lock:
                self._joiner.done()
                following = self._joiner.take(self._limit)
                if following:
                    following[0].lead = following
            if following:
                following[0].wake()

    def _give_up(self, mine: Waiting, timeout_s: float) -> None:
        with self._lock:
            if mine.lead or mine.answered:
                return
            self._joiner.remove(mine)
        mine.settle(error=error_from_silence(asked=mine.call.asked, timeout_s=timeout_s))

    def _limit(self, call: Call[Any]) -> int:
        return self._session.known_limit(call) or 1


def _woken(woken: "queue.SimpleQueue[None]", seconds: float) -> bool:
    try:
        woken.get(timeout=max(0.0, seconds))
    except queue.Empty:
        return False
    return True
