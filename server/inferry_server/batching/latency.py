"""What is known of how long a model's batches take: learned from those that ran. Pure: times are passed in.

- `LatencyModel` fits t(n) = a + b n; `ShapeLatencies` has one for each shape of items: a large picture takes longer
  than a small one.
- `PredictionDoubt` says when a prediction may refuse a request. If all requests were refused, nothing would be
  measured, and a wrong prediction would stay. So a prediction counts only if a batch of the same kind ran lately and
  took as long; if as many rows ran lately in the time that is left, the prediction is wrong. Without either, one
  request that would be refused is computed now and then: a *probe*. The time that a probe takes is adopted at once.
- `TurnWait` knows how long batches wait for cores that other models use as well.
- `Steadiness` knows by how much batches take longer than expected, and so which may be computed inline.
"""

import math
from collections import OrderedDict
from typing import TypeVar

ShapeKey = tuple[tuple[tuple[int, ...], ...], int]
"""The shapes of the inputs, without N, and the bytes of a row: of a model without rows, the first axis counts too."""

_MOST_SHAPES = 256
_LEAST_SHARE = 8
_LATELY_S = 0.5  # a device that is fast again is believed to be after so long, and the probe's run
_MOST_KINDS = 256

_Kind = tuple[ShapeKey, int]
_Value = TypeVar("_Value")
_MARGIN = 4.0  # mean excesses, as TCP takes mean deviations for its timeouts (RFC 6298)
_NEWEST = 0.25  # weight of the latest batch in the mean
_OVERRUN = 5.0  # times the limit
_WAIT_KEPT = 0.8  # weight of the batches before the newest: turns differ by who else is there
_WAIT_HALVES_S = 1.0
_SHORTEST_S = 1e-6  # below what a clock can tell
# relative weight of the fit before
_HOLD = 1e-4  # guard: latency-fit-held


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
    def typical_rows(self) -> float:
        """Rows of the batches that were seen lately, those that took long counting less; 0 before any.

        There the fit is sure, whatever it says of other sizes: batches of one size tell nothing of how the time
        depends on it.
        """
        return self._xx_ab / self._xx_aa * self._scale if self._xx_aa else 0.0

    def seconds_at(self, rows: float) -> float:
        """As `batch_s`, of a size that is no whole number."""
        return max(0.0, self._a + self.b * rows)

    def copy(self) -> "LatencyModel":
        """The same, as it is now."""
        same = LatencyModel(self._scale, forgetting=self._forgetting)
        same._a, same._b = self._a, self._b
        same._xx_aa, same._xx_ab, same._xx_bb = self._xx_aa, self._xx_ab, self._xx_bb
        same._x_a, same._x_b = self._x_a, self._x_b
        return same

    @property
    def is_measured(self) -> bool:
        """Whether a batch was seen; before, there is a guess at most."""
        return self._xx_aa > 0

    def guess(self, like: "LatencyModel", times: float) -> None:
        """Expect `times` as long as another latency model does, until a batch was seen."""
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
        # Asked several times a request: `b` would be a call more.
        return max(0.0, self._a + self._b / self._scale * rows) if rows else 0.0

    def total_s(self, rows: int, *, largest: int) -> float:
        """Seconds so many rows take in batches as large as they may be."""
        full, rest = divmod(rows, largest)
        return full * self.batch_s(largest) + self.batch_s(rest)

    def rows_for_share(self, share: float, *, of: int) -> int:
        """The least rows of a batch that computes as large a share of the rows a second as a larger one does.

        A power of two, which devices that pad batches do not pad, and no less than an eighth of the larger one: the
        fit leaves out what passes between two batches.

        Args:
            share: below 1.
            of: rows of the larger batch, which is returned where nothing was measured.
        """
        each_s, whole_s = max(0.0, self._a), of * max(0.0, self.b)
        if each_s + whole_s <= 0:
            return of
        # n / t(n) = share * of / t(of), solved for n
        rows = math.ceil(max(share * of * each_s / (each_s + (1 - share) * whole_s), of / _LEAST_SHARE))
        return min(of, 1 << (rows - 1).bit_length())

    def _fit(self) -> None:
        # Each is held in proportion to what was seen of it: batches far below the largest tell b too.
        hold_a, hold_b = _HOLD * self._xx_aa, _HOLD * self._xx_bb
        aa, ab, bb = self._xx_aa + hold_a, self._xx_ab, self._xx_bb + hold_b
        y_a, y_b = self._x_a + hold_a * self._a, self._x_b + hold_b * self._b
        determinant = aa * bb - ab * ab  # above 0, for ab squared is at most the product of the sums
        self._a, self._b = (bb * y_a - ab * y_b) / determinant, (aa * y_b - ab * y_a) / determinant


class TurnWait:
    """Learns how long a batch waits for its turn at cores that other models use as well.

    What was seen fades within seconds: another model that was busy may be idle by now, and a model whose
    requests are refused because of it would never measure that. Not thread-safe.
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


class PredictionDoubt:
    """Which predictions about one model may refuse a request, by kind of request. Bounded; not thread-safe.

    Requests of one shape and of about as many rows are one kind: their predictions may be wrong while those
    of other kinds are right.

    Args:
        largest: rows of a full batch; a request of more is computed in several.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._measured: OrderedDict[_Kind, tuple[int, float, float]] = OrderedDict()  # rows, seconds, and when
        self._probe_at: OrderedDict[_Kind, float] = OrderedDict()

    def measured(self, shape: ShapeKey, rows: int, seconds: float, now: float) -> None:
        """A batch has run."""
        _remember(self._measured, (shape, rows.bit_length()), (rows, seconds, now))

    def allows_refusal(self, shape: ShapeKey, rows: int, left_s: float, now: float) -> bool:
        """Whether a request may be refused on a prediction; if not, it is the probe, and has to be computed.

        Args:
            shape: of its rows.
            rows: of it.
            left_s: until its deadline; infinite where it is not its own time that makes it late.
            now: on the monotonic clock.
        """
        kind = (shape, rows.bit_length())
        measured, seconds, at = self._measured.get(kind, (1, 0.0, -math.inf))
        if rows > self._largest:  # guard: doubt-several-batches
            is_disproved = self._cut_took_lately_s(shape, rows, now) <= left_s
        else:
            is_disproved = now - at < _LATELY_S and measured >= rows and seconds <= left_s
        # as many rows have just been computed in the time that is left
        if is_disproved and left_s < math.inf:
            return False  # guard: doubt-disproved
        probe_at = self._probe_at.get(kind)
        if probe_at is None:
            _remember(self._probe_at, kind, now + _LATELY_S)
            return True
        if now < probe_at:
            return True  # guard: doubt-rarely
        # The least that these rows take: no less than fewer rows did, nor than their share of more.
        if now - at < _LATELY_S and seconds * min(1.0, rows / measured) > left_s:
            return True  # guard: doubt-witness
        _remember(self._probe_at, kind, now + _LATELY_S)
        return False

    def _cut_took_lately_s(self, shape: ShapeKey, rows: int, now: float) -> float:
        """Seconds that the batches took lately into which so many rows are cut; infinite where one has not run."""
        full, rest = divmod(rows, self._largest)
        seconds = 0.0
        for count, part in ((full, self._largest), (1, rest)):
            if part:
                measured, took_s, at = self._measured.get((shape, part.bit_length()), (0, 0.0, -math.inf))
                seconds += count * took_s if now - at < _LATELY_S and measured >= part else math.inf
        return seconds


class ShapeLatencies(dict[ShapeKey, LatencyModel]):
    """A latency model for each shape, made when it is first asked for. Bounded; not thread-safe.

    A model of fixed shapes has one latency model, which begins with what warming up measured. A batch of a
    new shape is expected to take as long as one of the latest shape before, or less if its rows have fewer
    bytes. That is a guess, and no request is refused on a guess.

    Args:
        warmed: what is known of the device.
        max_batch_size: rows of a large batch.

    Attributes:
        doubt: which predictions may refuse a request.
    """

    def __init__(self, warmed: LatencyModel, max_batch_size: int) -> None:
        super().__init__()
        self.doubt = PredictionDoubt(max_batch_size)
        self._warmed: LatencyModel | None = warmed
        self._max_batch_size = max_batch_size

    @property
    def latest(self) -> LatencyModel | None:
        """That of the shape that was seen last for the first time; before any, what warming up measured."""
        return self[next(reversed(self))] if self else self._warmed

    def learn(self, shape: ShapeKey, rows: int, seconds: float, now: float, *, is_probe: bool) -> None:
        """Learn the time of a batch that has just run; the time of a probe is adopted at once, if it is shorter."""
        latency = self[shape]
        if is_probe:
            latency.at_most(rows, seconds)  # guard: doubt-believed
        latency.observe(rows, seconds)
        self.doubt.measured(shape, rows, seconds, now)

    def __missing__(self, key: ShapeKey) -> LatencyModel:
        warmed, self._warmed = self._warmed, None
        model = self[key] = warmed or self._guessed(key)
        if len(self) > _MOST_SHAPES:
            del self[next(iter(self))]  # guard: shapes-bounded
        return model

    def _guessed(self, key: ShapeKey) -> LatencyModel:
        model = LatencyModel(self._max_batch_size)
        latest = next(reversed(self))
        model.guess(self[latest], min(1.0, key[1] / latest[1]) if latest[1] else 1.0)
        return model


class Steadiness:
    """Which batches may be computed inline, where the thread that computes them reads nothing. Not thread-safe.

    A batch may, if its expected time and a margin are no longer than the limit. The margin is four times the mean by
    which the latest batches took longer than expected. Once a batch of a model took five times the limit, none of its
    batches is computed inline any more: their times cannot be predicted. Only the time counts for which the batch's
    thread had a core; while it waited for one, any other thread would have waited as well.

    Args:
        limit_s: how long such a batch may take; 0: there are none.

    Attributes:
        limit_s: how long a batch may be expected to take now.
        has_overrun: whether a batch took more than five times the limit that was set.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = self.limit_s = limit_s
        self._excess_s = 0.0  # mean
        self.has_overrun = False

    def observe(self, expected_s: float, computed_s: float) -> bool:
        """Learn from a batch, wherever it was computed.

        Args:
            expected_s: what it should have taken.
            computed_s: for how long its thread had a core meanwhile.

        Returns:
            Whether it is the first that took more than five times the limit.
        """
        excess_s = max(0.0, computed_s - expected_s)
        self._excess_s += _NEWEST * (excess_s - self._excess_s)  # guard: inline-no-varying-times
        overruns = computed_s > _OVERRUN * self._limit_s and not self.has_overrun
        if overruns:
            self.has_overrun = True
        self.limit_s = self._limit_s - _MARGIN * self._excess_s
        if self.has_overrun:
            self.limit_s = -1.0  # guard: inline-no-overrun
        return overruns


def _remember(known: OrderedDict[_Kind, _Value], kind: _Kind, value: _Value) -> None:
    known[kind] = value
    known.move_to_end(kind)
    if len(known) > _MOST_KINDS:
        known.popitem(last=False)  # guard: doubt-bounded
