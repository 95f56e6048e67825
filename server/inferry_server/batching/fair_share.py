"""Whose batch is computed next where models share the cores. Pure: time is passed in.

Start-time fair queueing (Goyal, Vin and Cheng, 1996), with several servers as in SFQ(D) (Jin, Chase
and Kaur, 2004), without weights. A model's tag counts the core-seconds it was given; the least tag
goes next, and a batch that runs is never interrupted. What a batch costs is known only when it has
run: it is charged what the model's last one cost, and the difference afterwards.
"""

import itertools
from collections import deque
from dataclasses import dataclass, field


@dataclass(eq=False)
class Claim:
    """One instance's wish to compute a batch; used again for its next one.

    Attributes:
        model: whose batch; the instances and versions of a model share what it is given.
        cores: threads that compute the batch.
        granted: it may compute.
    """

    model: str
    cores: int
    granted: bool = field(default=False, init=False)
    charged: float = field(default=0.0, init=False)  # core-seconds, until the true cost is known
    asked: int = field(default=0, init=False)  # its place among equals


@dataclass
class _Account:
    """What a model was given: `tag` is where its next batch starts in virtual time."""

    tag: float
    last_cost: float = 0.0
    waiting: deque[Claim] = field(default_factory=deque)


class FairQueue:
    """Claims to so many cores. Not thread-safe: its owner holds a lock.

    Over any time in which two models have batches waiting, their core-seconds differ by no more
    than a few batches of each. A model that was idle starts at the current virtual time: it gets no
    turns for the time in which it asked for none. So its first batch waits for what runs, and for at most
    about one batch of each model that waits as well.

    Args:
        cores: that may compute at the same time; a batch that wants more takes all of them.

    Attributes:
        backlogged: the models with claims that wait.
    """

    def __init__(self, cores: int) -> None:
        self._cores = self._free = cores
        self._now = 0.0  # virtual time: the latest tag at which a batch began
        self._accounts: dict[str, _Account] = {}
        self.backlogged: dict[str, _Account] = {}
        self._order = itertools.count()

    def ask(self, claim: Claim) -> list[Claim]:
        """Wait for a turn, after a time in which the instance had nothing to compute.

        Returns:
            The claims that may compute from now on.
        """
        account = self._accounts.setdefault(claim.model, _Account(self._now))
        account.tag = max(account.tag, self._now)
        self._enqueue(account, claim)
        return self.grants()

    def done(self, claim: Claim, compute_s: float, *, again: bool = False) -> list[Claim]:
        """A granted batch has run for so many seconds.

        Args:
            claim: whose.
            compute_s: that long.
            again: it waits for the next turn at once, and keeps its model's tag.

        Returns:
            The claims that may compute from now on. None where only this claim waits: its next turn is granted when
            its thread asks for it (`grants`), so that a claim of another model that comes while that thread makes its
            replies goes first.
        """
        account = self._accounts[claim.model]
        account.last_cost = compute_s * self._width(claim)
        account.tag += account.last_cost - claim.charged
        self._free_cores(claim)
        if again:
            self._enqueue(account, claim)
            return [] if self._is_alone(claim) else self.grants()
        self._forget_idle()
        return self.grants()

    def withdraw(self, claim: Claim) -> list[Claim]:
        """A claim that is not needed any more, granted or not; it costs nothing.

        Returns:
            The claims that may compute from now on.
        """
        account = self._accounts[claim.model]
        if claim.granted:
            account.tag -= claim.charged
            self._free_cores(claim)
        else:
            self._dequeue(account, claim)
        self._forget_idle()
        return self.grants()

    def grants(self) -> list[Claim]:
        """The claims that may compute from now on, in the order of their turns."""
        granted: list[Claim] = []
        while self.backlogged and (claim := self._grant()) is not None:
            granted.append(claim)
        return granted

    def _grant(self) -> Claim | None:
        """The next claim; None while it has to wait for cores.

        Nobody overtakes it: a batch that needs many cores would wait for ever.
        """
        account = min(self.backlogged.values(), key=lambda account: (account.tag, account.waiting[0].asked))
        claim = account.waiting[0]
        if self._width(claim) > self._free:
            return None
        self._dequeue(account, claim)
        self._free -= self._width(claim)
        self._now = max(self._now, account.tag)
        claim.granted, claim.charged = True, account.last_cost
        account.tag += claim.charged
        return claim

    def _is_alone(self, claim: Claim) -> bool:
        """Whether no other claim waits."""
        return list(self.backlogged) == [claim.model] and len(self.backlogged[claim.model].waiting) == 1

    def _forget_idle(self) -> None:
        """Drop what no decision needs any more: everything, where nothing runs or waits."""
        if self._free == self._cores and not self.backlogged:
            self._accounts.clear()
            self._now = 0.0

    def _enqueue(self, account: _Account, claim: Claim) -> None:
        claim.asked = next(self._order)
        account.waiting.append(claim)
        self.backlogged[claim.model] = account

    def _dequeue(self, account: _Account, claim: Claim) -> None:
        account.waiting.remove(claim)
        if not account.waiting:
            del self.backlogged[claim.model]

    def _free_cores(self, claim: Claim) -> None:
        self._free += self._width(claim)
        claim.granted = False

    def _width(self, claim: Claim) -> int:
        return min(claim.cores, self._cores)
