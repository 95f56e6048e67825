"""How long a batch takes, and waits for its turn, learned from the batches that ran: t(n) = a + b n."""


class LatencyModel:
    """Fits t(n) = a + b n by least squares on relative errors, the latest batches counting most.

    Relative, because the noise of a batch's time grows with the time. Old batches fade, so that the
    fit follows a device whose speed changes. What no recent batch shows (all were of one size) stays
    as it was: every fit is held, very lightly, to the one before. Not thread-safe.

    Args:
        max_batch_size: rows of a large batch, to which n is scaled.
        forgetting: weight of a batch relative to the next one; 0.98 looks back some fifty batches.
    """

    def __init__(self, max_batch_size: int, *, forgetting: float = 0.98) -> None:
        self._scale = max_batch_size
        self._forgetting = forgetting
        self._a = self._b = 0.0  # optimistic until something was measured: nothing is refused on a guess
        # Sums of the normal equations for x (a, b) = 1, with x = (1, n / scale) / t.
        self._xx_aa = self._xx_ab = self._xx_bb = self._x_a = self._x_b = 0.0

    @property
    def a(self) -> float:
        """Seconds a batch costs whatever its size."""
        return self._a

    @property
    def b(self) -> float:
        """Seconds a row costs."""
        return self._b / self._scale

    @property
    def is_measured(self) -> bool:
        """Whether a batch was seen; before, there is a guess at most."""
        return self._xx_aa > 0

    def guess(self, like: "LatencyModel", times: float) -> None:
        """Expect so many times what another model expects, until a batch was seen."""
        self._a, self._b = like._a * times, like._b * times

    def at_most(self, rows: int, seconds: float) -> None:
        """A batch of so many rows has just run in so little time: expect no more.

        What was learned is kept as far as it says how the time depends on the rows; all of it is scaled,
        as if the device had always been as fast as now.
        """
        expected = self.batch_s(rows)
        scale = max(seconds, _SHORTEST_S) / expected if expected else 1.0
        if scale >= 1.0:
            return
        self._a, self._b = self._a * scale, self._b * scale
        self._x_a, self._x_b = self._x_a / scale, self._x_b / scale
        squared = scale * scale
        self._xx_aa, self._xx_ab, self._xx_bb = self._xx_aa / squared, self._xx_ab / squared, self._xx_bb / squared

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from a batch that ran."""
        seconds = max(seconds, _SHORTEST_S)
        x_a, x_b = 1 / seconds, rows / self._scale / seconds
        keep = self._forgetting  # guard: latency-old-batches
        self._xx_aa = keep * self._xx_aa + x_a * x_a
        self._xx_ab = keep * self._xx_ab + x_a * x_b
        self._xx_bb = keep * self._xx_bb + x_b * x_b
        self._x_a = keep * self._x_a + x_a
        self._x_b = keep * self._x_b + x_b
        self._fit()

    def batch_s(self, rows: int) -> float:
        """Seconds one batch of so many rows takes; 0 for none."""
        return max(0.0, self._a + self.b * rows) if rows else 0.0

    def total_s(self, rows: int, *, largest: int) -> float:
        """Seconds so many rows take in batches as large as they may be."""
        full, rest = divmod(rows, largest)
        return full * self.batch_s(largest) + self.batch_s(rest)

    def _fit(self) -> None:
        # Each is held in proportion to what was seen of it: batches far below the largest tell b too.
        hold_a, hold_b = _HOLD * self._xx_aa, _HOLD * self._xx_bb
        aa, ab, bb = self._xx_aa + hold_a, self._xx_ab, self._xx_bb + hold_b
        y_a, y_b = self._x_a + hold_a * self._a, self._x_b + hold_b * self._b
        determinant = aa * bb - ab * ab  # above 0, for ab squared is at most the product of the sums
        self._a, self._b = (bb * y_a - ab * y_b) / determinant, (aa * y_b - ab * y_a) / determinant


class TurnWait:
    """Learns how long a batch waits for its turn at cores that other models use as well.

    What was seen fades within seconds: a busy neighbour becomes idle, and a model whose requests are
    refused for it would never learn that. Not thread-safe.
    """

    def __init__(self) -> None:
        self._s = self._seen_at = 0.0

    def observe(self, waited_s: float, now: float) -> None:
        """A batch had its turn now, after waiting for so long."""
        keep = _WAIT_KEPT * self._freshness(now)
        self._s, self._seen_at = keep * self._s + (1 - keep) * waited_s, now

    def expected_s(self, now: float) -> float:
        """Seconds that the next batch may have to wait."""
        return self._s * self._freshness(now) if self._s else 0.0

    def at_most(self, waited_s: float) -> None:
        """A batch has just waited for so little time: expect no more."""
        self._s = min(self._s, waited_s)

    def _freshness(self, now: float) -> float:
        return float(0.5 ** ((now - self._seen_at) / _WAIT_HALVES_S))


_WAIT_KEPT = 0.8  # weight of the batches before the newest: turns differ by who else is there
_WAIT_HALVES_S = 1.0
_SHORTEST_S = 1e-6  # below what a clock can tell
# relative weight of the fit before
_HOLD = 1e-4  # guard: latency-fit-held
