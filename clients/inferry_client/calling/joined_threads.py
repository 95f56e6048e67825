"""Joined requests of threads: threads of the client send them, and callers wake one another.

A woken thread needs the interpreter's lock. If all callers of a request were woken together, each would
sleep a second time, for that lock. So one is woken, and each wakes the next as soon as it has the lock:
that one wakes up while the other returns, asks again and sleeps. (Two or four at a time slept more often.)
The request keeps its place under way until all are awake: most have asked again by then, and those
calls travel together.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from inferry_client.calling.calls import Session
from inferry_client.calling.joining import (
    Asleep,
    Batching,
    Ended,
    Joiner,
    Waiting,
    alone,
    deliver,
    fail,
    join,
    separate,
)
from inferry_client.errors import InferryError, error_from_silence
from inferry_client.messages.call import Call

_IDLE_S = 5.0  # a sender that had nothing to do for so long ends; another is started when one is needed


class ThreadJoiner:
    """Carries out joined calls.

    A caller blocks until its call is answered, or its time is up. A call that meets no other is made
    on its caller's thread. All others are sent by threads of the joiner, one for each joined request
    under way; they are started when needed. One lock guards the waiting calls and the list of threads;
    nothing is sent while it is held, and no other lock is taken.

    Args:
        settings: how to join.
        session: of the client.
        send: makes one call, now.
    """

    def __init__(self, settings: Batching, session: Session, send: Callable[[Call[Any]], Any]) -> None:
        self._session = session
        self._send = send
        self._joiner = Joiner(settings)
        self._lock = threading.Lock()
        self._idle: list[threading.Lock] = []  # of each sender that waits, what it waits for

    def run(self, call: Call[Any]) -> Any:
        """The result of a call, whoever's request it travelled in."""
        assert call.joint is not None  # noqa: S101 - its caller looked
        if self._joiner.idle:
            meets_no_other = False
            try:
                with self._lock:
                    meets_no_other = self._joiner.reserve_alone()
                if meets_no_other:
                    return self._send(call)
            finally:
                if meets_no_other:
                    self._hand_over()
        timeout_s = self._session.timeout_s if call.timeout_s is None else call.timeout_s
        left_s = timeout_s - call.waited_s
        woken = threading.Lock()  # an event costs three times as much
        woken.acquire()
        mine = Waiting(call, call.joint(), timeout_s, time.monotonic() + left_s, woken.release)
        self._wait(mine, woken, left_s)
        if mine.alone:
            return self._send(alone(mine, time.monotonic()))
        return mine.share()

    def _wait(self, mine: Waiting, woken: threading.Lock, left_s: float) -> None:
        in_time = False
        try:
            with self._lock:
                self._joiner.add(mine)
                begin = self._next_request()
            if begin:
                begin()
            in_time = woken.acquire(timeout=left_s)
        finally:  # also where its thread is interrupted
            if in_time:
                self._wake_next(mine.asleep)
            else:
                self._leave(mine)
        if not mine.answered:
            raise error_from_silence(asked=mine.call.asked, timeout_s=mine.timeout_s)

    def _leave(self, mine: Waiting) -> None:
        with self._lock:
            mine.left = True
            if not mine.answered:
                self._joiner.remove(mine)
                return
        asleep = mine.asleep
        try:
            if asleep:
                asleep.remove(mine.wake)
        except ValueError:  # it was woken meanwhile, and nobody else would wake the next
            self._wake_next(asleep)

    def _wake_next(self, asleep: Asleep | None) -> None:
        if not asleep:
            return  # all are awake
        try:
            wake = asleep.popleft()
        except IndexError:  # another thread has just taken the last
            return
        wake()

    def _hand_over(self, ended: Ended | None = None) -> None:
        """Give the place of a request to the next one."""
        with self._lock:
            self._joiner.release(ended, now=time.monotonic())
            begin = self._next_request()
        if begin:
            begin()

    def _next_request(self) -> Callable[[], object] | None:
        """What begins a request for calls that wait; None: none may be sent. The lock is held."""
        if not self._joiner.reserve():
            return None
        return self._idle.pop().release if self._idle else self._start_sender

    def _start_sender(self) -> None:
        try:
            threading.Thread(target=self._make_requests, name="joined-requests", daemon=True).start()
        except RuntimeError:  # there are too many threads: everybody asks for itself
            self._settle(self._take(), separate, time.monotonic())

    def _make_requests(self) -> None:
        called = threading.Lock()
        called.acquire()
        while True:
            batch, began = self._take(), time.monotonic()
            self._settle(batch, self._ask(batch) if batch else separate, began, called)
            if not called.acquire(timeout=_IDLE_S):
                with self._lock:
                    if called in self._idle:
                        self._idle.remove(called)
                        return
                called.acquire()

    def _take(self) -> list[Waiting]:
        with self._lock:
            return self._joiner.take(lambda call: self._session.known_limit(call) or 1)

    def _ask(self, batch: list[Waiting]) -> Callable[[list[Waiting]], None]:
        """Make the joined request; what comes back tells its calls what has become of them."""
        try:
            result = self._send(join(batch, time.monotonic()))
        except InferryError as error:
            return partial(fail, error=error)
        except Exception as error:  # noqa: BLE001 - its callers wait for it
            return partial(fail, error=InferryError(f"the joined request failed: {error}"))
        return partial(deliver, result=result)

    def _settle(
        self,
        batch: list[Waiting],
        tell: Callable[[list[Waiting]], None],
        began: float,
        called: "threading.Lock | None" = None,
    ) -> None:
        """Tell the calls of a request, have its sender wait for the next one, and wake the first caller."""
        ended = time.monotonic()
        with self._lock:
            tell(batch)
            asleep: Asleep = deque([each.wake for each in batch if not each.left])
            asleep.append(partial(self._hand_over, Ended(ended - began, ended)))
            for each in batch:
                each.asleep = asleep
            if called:
                self._idle.append(called)
        self._wake_next(asleep)
