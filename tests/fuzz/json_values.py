"""JSON values that are nearly right."""

import math
import random
from typing import Any

_VALUES: tuple[Any, ...] = (
    "\ud800",
    "\0",
    "a" * 5000,
    "../x",
    0.5,
    2**31,
    2**63,
    "18446744073709551616",
    -(2**63) - 1,
    0,
    -1,
    1e39,
    math.nan,
    math.inf,
    2**70,
    True,
    None,
    "",
    "text",
    [],
    {},
    [[1]],
    "FP32",
    "BYTES",
    [1, 3],
    [3],
)
_NAMES = ("data", "parameters", "shape", "new", "", "1", "../x", "NEW")


def with_other_value(value: Any, rng: random.Random) -> Any:
    """The JSON value with one thing in it exchanged, dropped or doubled."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.15:
        return rng.choice(_VALUES)
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    changed: Any = value.copy()
    match rng.randrange(6):
        case 0:
            del changed[key]
        case 1 if isinstance(changed, list):
            changed.insert(key, changed[key])
        case 1:
            changed[rng.choice(_NAMES)] = value[key]
        case _:
            changed[key] = with_other_value(value[key], rng)
    return changed
