"""Variants of a model: the same network in reduced precision, and how callers say which of them they accept."""

from collections.abc import Sequence

FLOAT32 = "float32"
PRECISIONS = ("float16", "int8")
"""Of variants, as a manifest's `precision` names them."""

PARAMETER = "accept_variant"
"""The parameter of a request, and of a model's own settings, that says which variants may answer."""

NAMED = "variant"
"""The parameter of a response that names the precision of the variant that answered."""

Accepted = frozenset[str]
"""Precisions whose variants may answer."""

ALL: Accepted = frozenset(PRECISIONS)
NONE: Accepted = frozenset()
EXPECTED = f"true, false, or precisions separated by commas ({', '.join(PRECISIONS)})"


def read_accepted(text: str) -> Accepted:
    """The precisions that a text accepts: `true` for all, `false` for none, or their names separated by commas.

    Raises:
        ValueError: anything else; the message says what was expected.
    """
    if text in ("true", "false"):
        return ALL if text == "true" else NONE
    names = [name.strip() for name in text.split(",")]
    if not all(name in PRECISIONS for name in names):
        raise ValueError(f"{text[:80]!r}; expected {EXPECTED}")
    return frozenset(names)


def write_accepted(accepted: bool | str | Sequence[str]) -> str:
    """The text that says it, checked.

    Args:
        accepted: whether every variant may answer, or which precisions.

    Raises:
        ValueError: as `read_accepted`.
    """
    if isinstance(accepted, bool):
        return "true" if accepted else "false"
    text = accepted if isinstance(accepted, str) else ",".join(map(str, accepted)) or "false"
    read_accepted(text)
    return text
