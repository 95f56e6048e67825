"""The ranges of numbers that the SDK and the command share; beyond them gRPC or a message would break."""

import operator
from numbers import Real
from typing import Any

from inferry_client.errors import InvalidSettingError

MAX_UINT32 = 2**32 - 1
MAX_TOP_K = MAX_UINT32  # as the request's field
MAX_MESSAGE_BYTES = 2**31 - 1  # an int in gRPC's settings
MAX_SECONDS = 86_400.0  # a day: nobody waits longer for one request, and every clock can count it


def check_seconds(name: str, value: Any) -> float:
    """A timeout or a pause that can be kept, as Python's own float: sums with NumPy's float32 lose minutes.

    Raises:
        InvalidSettingError: no number, not above 0, or above a day.
    """
    seconds = float(value) if isinstance(value, Real) else 0.0
    if not 0 < seconds <= MAX_SECONDS:  # so written, NaN is refused too
        raise InvalidSettingError(f"{name} is {value!r}; expected more than 0 and up to {MAX_SECONDS:g}")
    return seconds


def check_share(name: str, value: Any) -> float:
    """A number from 0 to 1.

    Raises:
        InvalidSettingError: it is none.
    """
    share = float(value) if isinstance(value, Real) else -1.0
    if not 0 <= share <= 1:
        raise InvalidSettingError(f"{name} is {value!r}; expected 0 to 1")
    return share


def check_whole_number(name: str, value: Any, low: int, high: int) -> int:
    """A whole number in its range, both ends included.

    Raises:
        InvalidSettingError: it is none, or out of its range.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if not low <= number <= high:
        raise InvalidSettingError(f"{name} is {value!r}; expected {low} to {high}, a whole number")
    return number


def check_kind(name: str, value: Any, kind: type | tuple[type, ...], expected: str) -> None:
    """See that an argument is what it is meant to be.

    Raises:
        InvalidSettingError: it is not.
    """
    if not isinstance(value, kind):
        raise InvalidSettingError(f"{name} is {value!r}; expected {expected}")


def check_text(name: str, value: Any) -> None:
    """See that an argument is text that a message can carry; None stands for none.

    Raises:
        InvalidSettingError: it is not.
    """
    if value is None:
        return
    check_kind(name, value, str, "text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidSettingError(f"{name} is {value!r}, half of a character; expected text") from None


def check_texts(**named: Any) -> None:
    """`check_text` for each."""
    for name, value in named.items():
        check_text(name, value)
