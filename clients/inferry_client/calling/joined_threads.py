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
            mine.leads = self._joiner.reserve()
        try:
            if mine.leads:
                time.sleep(0)  # threads that are ready now run first, and join too
            while not mine.answered:
                if mine.leads:
                    self._lead(mine)
                elif not _woken(woken, deadline - time.monotonic()):
                    self._give_up(mine, timeout_s)
        finally:  # also where its thread is interrupted
            self._leave(mine)
        if mine.alone:
            return self._send(call)
        if mine.error:
            raise mine.error
        return mine.result

    def _lead(self, mine: Waiting) -> None:
        with self._lock:
            batch = self._joiner.take(self._limit) if self._joiner.waits(mine) else []
        try:
            if batch:
                deliver(batch, self._send(join(batch)))
        except InferryError as error:
            fail(batch, error)
        except BaseException as error:
            fail(batch, InferryError(f"the joined request failed: {error}"))
            raise
        finally:
            self._hand_over(mine)

    def _hand_over(self, mine: Waiting) -> None:
        """Have a caller that waits send the next request, with what will wait by then.

        It runs behind those that `deliver` woke, so that their next calls join its request.
        """
        with self._lock:
            mine.leads = False
            following = self._joiner.next_leader()
            if following is None:
                self._joiner.release()
                return
            following.leads = True
        following.wake()

    def _leave(self, mine: Waiting) -> None:
        if not mine.answered:
            with self._lock:
                self._joiner.remove(mine)
        if mine.leads:  # it was told to while its answer came
            self._hand_over(mine)

    def _give_up(self, mine: Waiting, timeout_s: float) -> None:
        with self._lock:
            if mine.leads or mine.answered:
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
