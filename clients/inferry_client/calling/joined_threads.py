"""Joined requests of threads: threads of the client send them, and callers wake one another.

A woken thread needs the interpreter's lock. If all callers of a request were woken together, each would
sleep a second time, for that lock. So one is woken, and each wakes the next as soon as it has the lock:
that one wakes up while the other returns, asks again and sleeps. (Two or four at a time slept more often.)
All answered callers, of whatever request, are in one row for that. A request keeps its place under way
until all its callers are awake: most have asked again by then, and those calls travel together.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from inferry_client.calling.calls import Session
from inferry_client.calling.joining import Batching, Ended, Joiner, Waiting, alone, deliver, fail, join, separate, split
from inferry_client.errors import InferryError, error_from_silence
from inferry_client.messages.call import Call

_IDLE_S = 5.0  # a sender that had nothing to do for so long ends; another is started when one is needed
_LOOK_S = 0.25  # how long a sender that has nothing to do lets answered callers sleep


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
        self._asleep: deque[Callable[[], object]] = deque()  # what wakes answered callers; behind a request's, its end
        self._waking = False  # somebody takes the next one, or has been woken to
        self._handed_over = 0.0  # when the latest request ended

    def run(self, call: Call[Any]) -> Any:
        """The result of a call, whoever's request it travelled in."""
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
        joint = call.joint
        assert joint is not None  # noqa: S101 - its caller looked
        timeout_s = self._session.timeout_s if call.timeout_s is None else call.timeout_s
        left_s = timeout_s - call.waited_s
        woken = threading.Lock()  # an event costs three times as much
        woken.acquire()
        mine = Waiting(call, joint, timeout_s, time.monotonic() + left_s, woken)
        self._wait(mine, woken, left_s)
        if mine.alone:
            return self._send(alone(mine, time.monotonic()))
        if mine.error:
            raise mine.error
        return mine.result

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
                self._wake_next()
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
        with suppress(ValueError):  # it was woken meanwhile
            self._asleep.remove(mine.woken.release)
        self._wake_next()  # else nobody would, or who should have done so cannot: a thread may end anywhere

    def _wake_next(self) -> None:
        """Wake the next answered caller; behind the last one of each request there is what ends it."""
        try:
            wake = self._asleep.popleft()
        except IndexError:  # a caller that left has woken one, too
            return
        wake()

    def _hand_over(self, ended: Ended | None = None) -> None:
        """Give the place of a request to the next one."""
        with self._lock:
            now = time.monotonic()
            if ended:
                ended = Ended(ended.rows, ended.under_way_s, at=max(ended.at, self._handed_over))
                self._handed_over = now
            self._joiner.release(ended, now=now)
            begin = self._next_request()
        if begin:
            begin()

    def _end(self, request: Ended | None) -> None:
        """Give the place of a request whose callers are awake to the next one, and wake the callers of another."""
        self._hand_over(request)
        with self._lock:
            self._waking = more = bool(self._asleep)
        if more:
            self._wake_next()

    def _next_request(self) -> Callable[[], object] | None:
        """What begins a request for calls that wait; None: none may be sent. The lock is held."""
        if not self._joiner.reserve():
            return None
        return self._idle.pop().release if self._idle else self._start_sender

    def _start_sender(self) -> None:
        try:
            threading.Thread(target=self._make_requests, name="joined-requests", daemon=True).start()
        except RuntimeError:  # there are too many threads: everybody asks for itself
            batch, begin = self._take()
            self._settle(batch, separate, time.monotonic())
            if begin:
                begin()

    def _make_requests(self) -> None:
        called = threading.Lock()
        called.acquire()
        while True:
            began = time.monotonic()
            batch, begin = self._take()
            if begin:
                begin()
            self._settle(batch, self._ask(batch) if batch else separate, began, called)
            if not self._is_called(called):
                with self._lock:
                    if called in self._idle:
                        self._idle.remove(called)
                        return
                called.acquire()

    def _is_called(self, called: threading.Lock) -> bool:
        """Whether a sender is called before it has been idle for too long.

        Meanwhile it wakes the next caller where nobody does: a signal may have ended the one that should have, between
        any two steps, and all that are behind it would sleep until their time is up.
        """
        for _ in range(max(1, round(_IDLE_S / _LOOK_S))):
            next_one = self._next_asleep()
            if called.acquire(timeout=min(_LOOK_S, _IDLE_S)):
                return True
            if next_one is not None and next_one is self._next_asleep():  # guard: join-interrupted-waker
                self._wake_next()
        return False

    def _next_asleep(self) -> Callable[[], object] | None:
        try:
            return self._asleep[0]
        except IndexError:
            return None

    def _take(self) -> "tuple[list[Waiting], Callable[[], object] | None]":
        """The calls of a request, and what begins another one at the same time."""
        with self._lock:
            batch = self._joiner.take(lambda call: self._session.known_limit(call) or 1)
            return batch, self._next_request()

    def _ask(self, batch: list[Waiting]) -> Callable[[list[Waiting]], None]:
        """Make the joined request; what comes back tells its calls what has become of them."""
        try:
            shares: Sequence[Any] = split(batch, self._send(join(batch, time.monotonic())))
        except InferryError as error:
            return partial(fail, error=error)
        except Exception as error:  # noqa: BLE001 - its callers wait for it
            return partial(fail, error=InferryError(f"the joined request failed: {error}"))
        return partial(deliver, shares=shares)

    def _settle(
        self,
        batch: list[Waiting],
        tell: Callable[[list[Waiting]], None],
        began: float,
        called: "threading.Lock | None" = None,
    ) -> None:
        """Tell the calls of a request, have its sender wait for the next one, and see that its callers wake."""
        ended = time.monotonic()
        rows = sum([each.call.rows for each in batch])
        with self._lock:
            tell(batch)
            self._asleep.extend([each.woken.release for each in batch if not each.left])
            self._asleep.append(partial(self._end, Ended(rows, ended - began, ended) if rows else None))
            if called:
                self._idle.append(called)
            begin, self._waking = not self._waking, True
        if begin:
            self._wake_next()
