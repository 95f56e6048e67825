"""Types of options: each reads a value, and says in a line what it accepts. And which options were given."""

import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence

_SHOWN = 40  # characters of a wrong value
_MAX_DURATION_S = 7 * 24 * 3600


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Reads a whole number in a range, both ends included."""

    def read(text: str) -> int:
        short = text.isascii() and text.isdecimal() and len(text) <= len(str(high))
        value = int(text) if short else low - 1
        if not low <= value <= high:
            raise ArgumentTypeError(f"{text[:_SHOWN]!r} came; expected a whole number from {low} to {high}")
        return value

    return read


def number(low: float, high: float) -> Callable[[str], float]:
    """Reads a number in a range, both ends included."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ArgumentTypeError(f"{text[:_SHOWN]!r} came; expected a number from {low:g} to {high:g}")
        return value

    return read


def numbers(low: float, high: float) -> Callable[[str], tuple[float, ...]]:
    """Reads numbers in a range, separated by commas."""
    read_one = number(low, high)

    def read(text: str) -> tuple[float, ...]:
        return tuple(read_one(part.strip()) for part in text.split(","))

    return read


def duration_s(text: str) -> int:
    """Reads `90`, `30s`, `5m` or `1m30s` into whole seconds."""
    match = re.fullmatch(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s?)?", text, re.ASCII)
    hours, minutes, seconds = (int(group or 0) for group in match.groups()) if match else (0, 0, 0)
    duration = 3600 * hours + 60 * minutes + seconds
    if not 1 <= duration <= _MAX_DURATION_S:
        raise ArgumentTypeError(
            f"{text[:_SHOWN]!r} came; expected a duration like 30s, 5m or 1m30s, up to {_MAX_DURATION_S // 3600}h"
        )
    return duration


def given_options(argv: Sequence[str]) -> frozenset[str]:
    """The options that a valid command line names, also those whose value is the default."""
    words = argv[: argv.index("--")] if "--" in argv else argv
    return frozenset(word.partition("=")[0] for word in words if word.startswith("--"))
