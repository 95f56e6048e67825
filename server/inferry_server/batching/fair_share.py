"""Whose batch is computed next where models share the cores. Pure: time is passed in.

Start-time fair queueing (Goyal, Vin and Cheng, 1996), with several servers as in SFQ(D) (Jin, Chase
and Kaur, 2004), without weights. A model's tag counts the core-seconds it was given; the least tag
goes next, and a batch that runs is never interrupted. What a batch costs is known only when it has
run: it is charged what the model's last one cost, and the difference afterwards.

A third of what a variant computes in place of its base is charged to the base. While both have batches waiting, the
variant is so given up to three quarters of what the two are given: a variant that is faster answers more requests in
that time than the base would. The base keeps a quarter, for requests that accept no variant, and for other models
nothing changes: what the two are charged together is what they were given.
"""

import itertools
from collections import deque

# Both tags advance alike where v - v/3 = b + v/3 for the core-seconds v of the variant and b of the base: v = 3b.
# As it is less than a half, a base that computes nothing for a while is not charged ahead of its variant.
_CHARGED_TO_BASE = 1 / 3


class Claim:
    """One instance's wish to compute a batch; used again for its next one.

    Attributes:
        model: whose batch; the instances and versions of a model share what it is given.
        cores: threads that compute the batch.
        granted: it may compute.
        charged: core-seconds, until the true cost is known.
        asked: its place among equals.
    """

    __slots__ = ("asked", "charged", "cores", "granted", "model")

    def __init__(self, model: str, cores: int) -> None:
        self.model = model
        self.cores = cores
        self.granted = False
        self.charged = 0.0
        self.asked = 0


class _Account:
    """What a model was given.

    Attributes:
        tag: where its next batch starts in virtual time.
        last_cost: of its last batch, in core-seconds.
        waiting: its claims, in the order of their turns.
        instead_of: the model in whose place it computes some of what it has; empty for none.
        instead_core_s: core-seconds that this should take, from now on.
    """

    __slots__ = ("instead_core_s", "instead_of", "last_cost", "tag", "waiting")

    def __init__(self, tag: float) -> None:
        self.tag = tag
        self.last_cost = 0.0
        self.waiting: deque[Claim] = deque()
        self.instead_of = ""
        self.instead_core_s = 0.0


class FairQueue:
    """Claims to so many cores. Not thread-safe: its owner holds a lock.

    Over any time in which two models have batches waiting, their core-seconds differ by no more
    than a few batches of each. A model that was idle starts at the current virtual time: it gets no
    turns for the time in which it asked for none. So its first batch waits for what runs, and for at most
    about one batch of each model that waits as well. A variant and its base are given as much as two models
    together; `compute_instead` says which of the two.

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
        account = self._accounts.get(claim.model)
        if account is None:
            account = self._accounts[claim.model] = _Account(self._now)
        elif account.tag < self._now:
            account.tag = self._now
        if not self.backlogged and (width := self._width(claim)) <= self._free:
            self._begin(account, claim, width)
            return [claim]
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
        width = self._width(claim)
        account.last_cost = compute_s * width
        account.tag += account.last_cost - claim.charged
        self._free += width
        claim.granted = False
        if account.instead_core_s:
            self._charge_base(account, again=again)
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

    def compute_instead(self, claim: Claim, base: str, compute_s: float) -> None:
        """A request of a model was queued for its variant, which should take so many seconds for it.

        Nothing changes where the base takes no turns at these cores.

        Args:
            claim: an instance of the variant.
            base: the model.
            compute_s: of the instance.
        """
        if base not in self._accounts:
            return
        variant = self._accounts.setdefault(claim.model, _Account(self._now))
        if variant.instead_of != base:
            variant.instead_of, variant.instead_core_s = base, 0.0
        variant.instead_core_s += compute_s * self._width(claim)

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
        width = self._width(claim)
        if width > self._free:
            return None
        self._dequeue(account, claim)
        self._begin(account, claim, width)
        return claim

    def _begin(self, account: _Account, claim: Claim, width: int) -> None:
        self._free -= width
        if account.tag > self._now:
            self._now = account.tag
        claim.granted, claim.charged = True, account.last_cost
        account.tag += claim.charged

    def _charge_base(self, variant: _Account, *, again: bool) -> None:
        """Charge the base its part of the variant's last batch, as far as it was computed in the base's place."""
        cost = min(variant.instead_core_s, variant.last_cost)  # guard: variant-own-requests
        base = self._accounts.get(variant.instead_of)
        if base is not None:
            base.tag += cost * _CHARGED_TO_BASE
            variant.tag -= cost * _CHARGED_TO_BASE  # guard: variant-turns-sooner
        # Without more to compute, what is left was cancelled.
        variant.instead_core_s = variant.instead_core_s - cost if again else 0.0

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
