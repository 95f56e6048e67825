"""Whether a model takes as long for its batches as is expected of it. Pure: times are passed in."""

_MARGIN = 4.0  # mean excesses, as TCP takes mean deviations for its timeouts (RFC 6298)
_NEWEST = 0.25  # weight of the latest batch in the mean
_OVERRUN = 5.0  # times the limit


class Steadiness:
    """Which batches may be computed where nothing else can be done meanwhile. Not thread-safe.

    A batch may, if it is expected to take no longer than the limit with a margin for how much longer than
    expected the latest batches took. A model that took five times the limit once is never trusted again: it was
    taken for one whose batches take about as long as they took before, and is not.

    Args:
        limit_s: how long such a batch may take; 0: there are none.

    Attributes:
        limit_s: how long a batch may be expected to take now.
        has_overrun: whether one took far longer than it may.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = self.limit_s = limit_s
        self._excess_s = 0.0  # mean
        self.has_overrun = False

    def observe(self, expected_s: float, took_s: float) -> bool:
        """Learn from a batch, wherever it was computed.

        Returns:
            Whether it is the first that took far longer than the limit.
        """
        excess_s = max(0.0, took_s - expected_s)
        self._excess_s += _NEWEST * (excess_s - self._excess_s)  # guard: inline-no-varying-times
        overruns = took_s > _OVERRUN * self._limit_s and not self.has_overrun
        if overruns:
            self.has_overrun = True
        self.limit_s = self._limit_s - _MARGIN * self._excess_s
        if self.has_overrun:
            self.limit_s = -1.0  # guard: inline-no-overrun
        return overruns
