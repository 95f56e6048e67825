"""The ranges of numbers that the SDK and the command share; beyond them gRPC or a message would break."""

MAX_TOP_K = 2**32 - 1  # a uint32 in the request
MAX_MESSAGE_BYTES = 2**31 - 1  # an int in gRPC's settings
MAX_SECONDS = 86_400.0  # a day: nobody waits longer for one request, and every clock can count it


def check_seconds(name: str, value: float) -> None:
    """See that a timeout or a pause can be kept.

    Raises:
        ValueError: not above 0, or above a day.
    """
    if not 0 < value <= MAX_SECONDS:  # so written, NaN is refused too
        raise ValueError(f"{name} is {value}; expected more than 0 and up to {MAX_SECONDS:g}")


def check_whole_number(name: str, value: object, low: int, high: int) -> None:
    """See that a setting is a whole number in its range, both ends included.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; expected a whole number from {low} to {high}")
