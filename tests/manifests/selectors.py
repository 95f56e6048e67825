"""Label selectors, for messages; `takes` of `bundle.py` reads them."""

from collections.abc import Iterator, Mapping
from typing import Any

Selector = Mapping[str, Any]


def is_empty(selector: Selector) -> bool:
    """Whether it takes everything."""
    return not selector.get("matchLabels") and not selector.get("matchExpressions")


def told(selector: Selector) -> str:
    """The selector, for a message."""
    return ", ".join(_told(selector)) or "every label"


def _told(selector: Selector) -> Iterator[str]:
    yield from (f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items())
    for one in selector.get("matchExpressions") or []:
        values = f" ({', '.join(one['values'])})" if one.get("values") else ""
        yield f"{one['key']} {one['operator']}{values}"
