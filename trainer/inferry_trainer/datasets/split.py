"""Who may see which image: splits by seed that cannot leak."""

import numpy as np

from inferry_trainer.arrays import Int64Array
from inferry_trainer.errors import ConfigError


def shuffled_split(count: int, held_out: int, *, seed: int) -> tuple[Int64Array, Int64Array]:
    """Positions kept and held out, from one fixed shuffle.

    The shuffle is drawn once and both parts are cut from it. Shuffling anew whenever the data is
    read, as a tf.data pipeline does by default, would leak held-out images into training.

    Args:
        count: how many images there are.
        held_out: how many of them to hold out.
        seed: equal seeds give equal splits.

    Returns:
        `(count - held_out,)` and `(held_out,)` int64; together every position exactly once.

    Raises:
        ConfigError: one of the two parts would be empty.
    """
    _check(count, held_out)
    order = np.random.default_rng(seed).permutation(count).astype(np.int64)
    return order[held_out:], order[:held_out]


def stratified_split(labels: Int64Array, held_out: int, *, seed: int) -> tuple[Int64Array, Int64Array]:
    """Positions kept and held out, with each class's share equal in both to within one image.

    Args:
        labels: `(N,)` int64.
        held_out: how many images to hold out.
        seed: equal seeds give equal splits.

    Returns:
        `(N - held_out,)` and `(held_out,)` int64, both shuffled; together every position exactly once.

    Raises:
        ConfigError: one of the two parts would be empty.
    """
    _check(len(labels), held_out)
    rng = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    quotas = _largest_remainders(counts, held_out)
    kept_parts, held_parts = [], []
    for label, quota in zip(classes, quotas, strict=True):
        members = rng.permutation(np.flatnonzero(labels == label))
        held_parts.append(members[:quota])
        kept_parts.append(members[quota:])
    kept = rng.permutation(np.concatenate(kept_parts)).astype(np.int64)
    return kept, rng.permutation(np.concatenate(held_parts)).astype(np.int64)


def _largest_remainders(counts: Int64Array, total: int) -> Int64Array:
    """Share `total` out in proportion to `counts`: round down, then one more where most was lost."""
    scaled = counts.astype(np.int64) * total
    quotas, remainders = np.divmod(scaled, counts.sum())
    missing = total - int(quotas.sum())
    quotas[np.argsort(-remainders, kind="stable")[:missing]] += 1
    return quotas.astype(np.int64)


def _check(count: int, held_out: int) -> None:
    if not 0 < held_out < count:
        raise ConfigError(f"cannot hold out {held_out} of {count} images; expected 1 to {count - 1}")
