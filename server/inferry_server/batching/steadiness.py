"""Whether a model takes as long for its batches as is expected of it. Pure: times are passed in."""

_MARGIN = 4.0  # mean excesses, as TCP takes mean deviations for its timeouts (RFC 6298)
_NEWEST = 0.25  # weight of the latest batch in the mean
_OVERRUN = 5.0  # times the limit


class Steadiness:
    """Which batches may be computed where nothing else can be done meanwhile. Not thread-safe.

    A batch may, if it is expected to take no longer than the limit with a margin for how much longer than
    expected the latest batches took. A model that computed for five times the limit once is never trusted again: it
    was taken for one whose batches take about as long as they took before, and is not. A batch that took as long
    while its thread had no core says nothing of the model: the process or the machine stood still. It counts into
    the margin like any other, so some twenty batches later it is forgotten.

    Args:
        limit_s: how long such a batch may take; 0: there are none.

    Attributes:
        limit_s: how long a batch may be expected to take now.
        overrun_s: whoever took no longer than this did not overrun.
        has_overrun: whether a model computed for longer than that.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = self.limit_s = limit_s
        self.overrun_s = _OVERRUN * limit_s
        self._excess_s = 0.0  # mean
        self.has_overrun = False

    def observe(self, expected_s: float, took_s: float, computed_s: float) -> bool:
        """Learn from a batch, wherever it was computed.

        Args:
            expected_s: what it should have taken.
            took_s: what it took, by the clock.
            computed_s: how long its thread had a core meanwhile; of interest above `overrun_s` alone.

        Returns:
            Whether it is the first for which a model computed far longer than the limit.
        """
        excess_s = max(0.0, took_s - expected_s)
        self._excess_s += _NEWEST * (excess_s - self._excess_s)  # guard: inline-no-varying-times
        overruns = min(took_s, computed_s) > self.overrun_s and not self.has_overrun  # guard: inline-stall-forgiven
        if overruns:
            self.has_overrun = True
        self.limit_s = self._limit_s - _MARGIN * self._excess_s
        if self.has_overrun:
            self.limit_s = -1.0  # guard: inline-no-overrun
        return overruns
