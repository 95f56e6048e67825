"""How long batches take, learned for each shape of items by itself: a large picture takes longer than a small one."""

from inferry_server.batching.latency import LatencyModel

ShapeKey = tuple[tuple[tuple[int, ...], ...], int]
"""The shapes of the inputs, without N, and the bytes of a row: of a model without rows, the first axis counts too."""

_MOST_SHAPES = 256


class ShapeLatencies(dict[ShapeKey, LatencyModel]):
    """A latency model for each shape, made when it is first asked for. Bounded; not thread-safe.

    A model of fixed shapes has one, which knows what warming up told. Of a shape that is new, as much is
    expected as of the latest one before, or less where its rows have fewer bytes; that is a guess, and what
    only a guess speaks against is computed.

    Args:
        warmed: what is known of the device.
        max_batch_size: rows of a large batch.
    """

    def __init__(self, warmed: LatencyModel, max_batch_size: int) -> None:
        super().__init__()
        self._warmed: LatencyModel | None = warmed
        self._max_batch_size = max_batch_size

    @property
    def latest(self) -> LatencyModel | None:
        """Of the shape that came last to be known; before any, what warming up told."""
        return self[next(reversed(self))] if self else self._warmed

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
