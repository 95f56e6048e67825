"""Turns at the cores: a thread waits until `fair_share.py` says that its batch is next."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from inferry_server.batching.fair_share import Claim, FairQueue


class Seat(Protocol):
    """One instance's turns at a device. One thread at a time uses it."""

    def acquire(self) -> float:
        """Wait until a batch may be computed; at once where that is so already.

        Returns:
            Seconds waited.
        """
        ...

    def try_acquire(self) -> bool:
        """Ask for a turn without waiting; if others have the device, `acquire` will wait for the same turn."""
        ...

    def release(self, compute_s: float, *, again: bool) -> None:
        """Give the turn back: the batch ran for `compute_s` seconds. `again` asks for the next turn at once."""

    def leave(self) -> None:
        """Nothing is to be computed now: give back the turn that was asked for or granted."""

    def compute_instead(self, base: str, compute_s: float) -> None:
        """A request for `base`, of `compute_s` seconds, was queued for this variant of it. Any thread may call."""


class ComputeGate:
    """Lets models compute in turns, as many threads at a time as there are cores. Thread-safe.

    `acquire` waits while other models compute; nothing else blocks. With one busy model, it costs
    one uncontended lock a batch and another to release it.

    Args:
        cores: threads that may compute at the same time.
        clock: monotonic seconds.
    """

    def __init__(self, cores: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._cores = cores
        self._clock = clock
        self._lock = threading.Lock()
        self._queue = FairQueue(cores)
        self._sleepers: dict[Claim, threading.Condition] = {}

    def share(self, threads: int) -> float:
        """The share of the cores that a batch of so many threads takes; above 1 where there are fewer cores."""
        return threads / self._cores

    def seat(self, model: str, threads: int) -> Seat:
        """The turns of one instance of a model, each of whose batches is computed by `threads` threads."""
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

    def _compute_instead(self, claim: Claim, base: str, compute_s: float) -> None:
        with self._lock:
            self._queue.compute_instead(claim, base, compute_s)

    def _wake(self, granted: Sequence[Claim]) -> None:
        for claim in granted:
            if claim in self._sleepers:
                self._sleepers[claim].notify()


class _GateSeat:
    """A turn is asked for, granted, and released; `release` with `again` asks for the next one.

    A thread that asks again still has its replies to make. If it asked after that, the cores would
    always go to other models first, and a model with fast batches would get one turn for each slow
    batch of another, whatever its share.
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

    def compute_instead(self, base: str, compute_s: float) -> None:
        self._gate._compute_instead(self._claim, base, compute_s)


class OpenSeat:
    """The seat of an instance that takes no turns, such as one on a GPU: it may always compute."""

    def acquire(self) -> float:
        """Computes at once."""
        return 0.0

    def try_acquire(self) -> bool:
        """Always True."""
        return True

    def release(self, compute_s: float, *, again: bool) -> None:
        """Does nothing."""

    def leave(self) -> None:
        """Does nothing."""

    def compute_instead(self, base: str, compute_s: float) -> None:
        """Does nothing."""
