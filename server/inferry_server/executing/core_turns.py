"""The gate before the cores: a thread passes it when `fair_share.py` says that its batch is next."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from inferry_server.batching.fair_share import Claim, FairQueue


class Seat(Protocol):
    """One instance's place before a device. One thread at a time uses it."""

    def acquire(self) -> float:
        """Wait until a batch may be computed; at once where that is so already.

        Returns:
            Seconds waited.
        """
        ...

    def try_acquire(self) -> bool:
        """Ask for it without waiting; where it cannot be had, `acquire` will wait for the same turn."""
        ...

    def release(self, compute_s: float, *, again: bool) -> None:
        """The batch has run for so many seconds; `again` where the next one waits already."""

    def leave(self) -> None:
        """Nothing is to be computed now: what was asked for or held goes to others."""


class ComputeGate:
    """Lets models compute in turns, as many threads at a time as there are cores. Thread-safe.

    `acquire` waits while other models compute; nothing else blocks. With one busy model, it costs
    one uncontended lock a batch and another to release it.

    Args:
        cores: threads that may compute at the same time.
        clock: monotonic seconds.
    """

    def __init__(self, cores: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._queue = FairQueue(cores)
        self._sleepers: dict[Claim, threading.Condition] = {}

    def seat(self, model: str, threads: int) -> Seat:
        """A place for one instance of a model, whose batches are computed by so many threads."""
        return _GateSeat(self, Claim(model, threads))

    def _acquire(self, claim: Claim, *, asked: bool) -> float:
        with self._lock:
            self._wake(self._queue.grants() if asked else self._queue.ask(claim))
            if claim.granted:
                return 0.0
            began = self._clock()
            granted = self._sleepers[claim] = threading.Condition(self._lock)
            granted.wait_for(lambda: claim.granted)
            del self._sleepers[claim]
            return self._clock() - began

    def _try_acquire(self, claim: Claim, *, asked: bool) -> bool:
        with self._lock:
            self._wake(self._queue.grants() if asked else self._queue.ask(claim))
            return claim.granted

    def _release(self, claim: Claim, compute_s: float, *, again: bool) -> None:
        with self._lock:
            self._wake(self._queue.done(claim, compute_s, again=again))

    def _leave(self, claim: Claim) -> None:
        with self._lock:
            self._wake(self._queue.withdraw(claim))

    def _wake(self, granted: Sequence[Claim]) -> None:
        for claim in granted:
            if claim in self._sleepers:
                self._sleepers[claim].notify()


class _GateSeat:
    """A seat is asked for, then granted, then released; `release` with `again` asks for the next turn.

    A thread that asks again still has its replies to make: were it asked for only afterwards, the
    cores would always go to the neighbours first, and a model with fast batches would get one for
    each slow one of theirs, whatever its share.
    """

    def __init__(self, gate: ComputeGate, claim: Claim) -> None:
        self._gate = gate
        self._claim = claim
        self._asked = self._held = False

    def acquire(self) -> float:
        if self._held:
            return 0.0
        waited_s = self._gate._acquire(self._claim, asked=self._asked)
        self._asked = self._held = True
        return waited_s

    def try_acquire(self) -> bool:
        if not self._held:
            self._held = self._gate._try_acquire(self._claim, asked=self._asked)
            self._asked = True
        return self._held

    def release(self, compute_s: float, *, again: bool) -> None:
        self._gate._release(self._claim, compute_s, again=again)
        self._asked, self._held = again, False

    def leave(self) -> None:
        if self._asked:
            self._gate._leave(self._claim)
            self._asked = self._held = False


class OpenSeat:
    """Before a device that is not shared through a gate: a GPU takes no turns at the cores."""

    def acquire(self) -> float:
        """Nobody is in the way."""
        return 0.0

    def try_acquire(self) -> bool:
        """It can be had at once."""
        return True

    def release(self, compute_s: float, *, again: bool) -> None:
        """Nobody waits."""

    def leave(self) -> None:
        """Nobody waits."""
