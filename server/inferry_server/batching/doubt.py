"""When a prediction may refuse a request, and when it is put to the test. Pure: time is passed in.

Where everything is refused nothing is measured, and a prediction that has become wrong would stay. So a
prediction needs a witness: a batch of the same kind that ran lately and took as long. Without one, a request
that the prediction speaks against is computed now and then all the same: a probe. How long it takes is
believed at once.
"""

from collections import OrderedDict
from typing import TypeVar

from inferry_server.batching.shape_latency import ShapeKey

_LATELY_S = 0.5  # a device that is fast again is believed to be after so long, and the probe's run
_MOST_KINDS = 256

_Kind = tuple[ShapeKey, int]
_Value = TypeVar("_Value")


class PredictionDoubt:
    """What speaks for the predictions about one model, by kind of request. Bounded; not thread-safe.

    A kind are requests of one shape and of about as many rows: what is predicted of them may be wrong while
    others are known well.
    """

    def __init__(self) -> None:
        self._measured: OrderedDict[_Kind, tuple[float, float]] = OrderedDict()  # seconds a row, and when
        self._probe_at: OrderedDict[_Kind, float] = OrderedDict()

    def measured(self, shape: ShapeKey, rows: int, seconds: float, now: float) -> None:
        """A batch has run."""
        _remember(self._measured, (shape, rows.bit_length()), (seconds / rows, now))

    def allows_refusal(self, shape: ShapeKey, rows: int, left_s: float, now: float) -> bool:
        """Whether a request may be refused on a prediction; else it is the probe, and has to be computed.

        Args:
            shape: of its rows.
            rows: of it.
            left_s: until its deadline.
            now: on the monotonic clock.
        """
        kind = (shape, rows.bit_length())
        row_s, at = self._measured.get(kind, (0.0, now))
        probe_at = self._probe_at.get(kind)
        if probe_at is None:
            _remember(self._probe_at, kind, now + _LATELY_S)
            return True
        if now < probe_at:
            return True  # guard: doubt-rarely
        if now - at < _LATELY_S and row_s * rows > left_s:
            return True  # guard: doubt-witness
        _remember(self._probe_at, kind, now + _LATELY_S)
        return False


def _remember(known: OrderedDict[_Kind, _Value], kind: _Kind, value: _Value) -> None:
    known[kind] = value
    known.move_to_end(kind)
    if len(known) > _MOST_KINDS:
        known.popitem(last=False)  # guard: doubt-bounded
