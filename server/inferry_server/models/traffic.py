"""Which label answers a request that names no version. Pure."""

import zlib
from collections.abc import Mapping

_GOLDEN_RATIO = 0.6180339887498949


def choose_label(weights: Mapping[str, int], *, request_id: str, turn: int) -> str:
    """A label, each as often as its weight says.

    A request with an id always goes the same way, so that a caller who repeats one meets the same
    version. Others take turns, spread as evenly as a sequence can be, not by chance.

    Args:
        weights: by label; one above 0 at least.
        request_id: empty for none.
        turn: counts the requests without id.
    """
    share = (
        zlib.crc32(request_id.encode()) / 2**32 if request_id else turn * _GOLDEN_RATIO % 1
    )  # guard: traffic-id-always
    point = share * sum(weights.values())
    for label in sorted(weights):
        point -= weights[label]
        if point < 0:
            return label
    return max(weights, key=lambda label: weights[label])  # rounding, at the very end of the range
