"""The search for the highest rate that a server holds. Decides only.

The rate doubles until it is not held, then the interval between the highest rate that was held and
the lowest that was not is halved (geometrically) until its ends are near each other. Chance is found out
both ways: a rate that is not held, as something else may have disturbed the machine, is tried once more, and
the result is tried a second time, and lowered until it is held again. A trial that the client spoilt, by sending
late, tells nothing of the server: it is made again, twice at the most.
"""

from dataclasses import dataclass, field

_NEAR = 1.05  # the ends of the interval, when the search is over
_CONFIRMED_STEP = 0.03  # lower after the first failure, twice that after the second, and so on
_TIMES_HELD = 2
_MOST_SPOILT = 2  # trials of a rate; a third counts, as this client cannot offer the rate
_MOST_TRIALS = 40


@dataclass
class PeakSearch:
    """Tells which rate to try next.

    Attributes:
        start: the first rate.
        lowest: a rate below which the search gives up.
        highest: a rate that is not exceeded.
        trials: how many there have been.
        confirming: the rate that was held and is tried again; None: none yet.
        highest_held: of the rates that were held, perhaps once only; None: none was.
        lowest_tried: of all rates.
    """

    start: float
    lowest: float = 0.5
    highest: float = 1e6
    trials: int = 0
    confirming: float | None = None
    highest_held: float | None = None
    lowest_tried: float = float("inf")
    _held: float | None = field(default=None)
    _not_held: float | None = field(default=None)
    _confirmed: float | None = field(default=None)
    _doubted: float | None = field(default=None)  # not held once
    _spoilt: int = 0  # trials of the rate that is tried
    _failures: int = 0
    _times_held: int = 1  # of the rate that is being confirmed: the search held it

    def next_rate(self) -> float | None:
        """The rate to try; None: the search is over."""
        if self._confirmed is not None or self.exhausted:
            return None
        if self.confirming is not None:
            return self.confirming
        if self._doubted is not None:
            return self._doubted
        if self._held is None and self._not_held is None:
            return min(max(self.start, self.lowest), self.highest)
        if self._not_held is None:
            assert self._held is not None  # noqa: S101 - one of them is known
            if self._held >= self.highest:
                self.confirming = self._held
                return self.confirming
            return min(2 * self._held, self.highest)
        if self._held is None:
            return self._not_held / 2 if self._not_held / 2 >= self.lowest else None
        if self._not_held / self._held <= _NEAR:
            self.confirming = self._held
            return self.confirming
        return float((self._held * self._not_held) ** 0.5)

    def note(self, rate: float, *, held: bool, spoilt: bool = False) -> None:
        """How the trial of a rate went.

        Args:
            rate: that `next_rate` gave.
            held: whether the server held it.
            spoilt: whether it was not held only since the client sent late.
        """
        self.trials += 1
        self.lowest_tried = min(self.lowest_tried, rate)
        if spoilt and not held and self._spoilt < _MOST_SPOILT:  # guard: load-peak-spoilt
            self._spoilt += 1
            return
        self._spoilt = 0
        if held:
            self._doubted = None
            self._note_held(rate)
        elif self._doubted is None:
            self._doubted = rate  # guard: load-peak-disturbed
        else:
            self._doubted = None
            self._note_not_held(rate)

    def _note_held(self, rate: float) -> None:
        self.highest_held = max(self.highest_held or 0.0, rate)
        if self.confirming is None:
            self._held = rate
            return
        self._times_held += 1
        if self._times_held >= _TIMES_HELD:  # guard: load-peak-twice
            self._confirmed = rate

    def _note_not_held(self, rate: float) -> None:
        self._not_held = rate
        if self.confirming is None:
            return
        self._held, self._times_held = None, 0
        self._failures += 1
        lower = rate * (1 - min(0.5, _CONFIRMED_STEP * self._failures))
        self.confirming = lower if lower >= self.lowest else None

    @property
    def exhausted(self) -> bool:
        """Whether there were so many trials that the search gives up without a peak."""
        return self._confirmed is None and self.trials >= _MOST_TRIALS

    @property
    def peak(self) -> float | None:
        """The highest rate that was held, twice; None: none was."""
        return self._confirmed
