"""Memory of requests that did not come whole goes back to the system once their calls were ended."""

from collections.abc import Callable

from inferry_server.runtime.memory import trim_heap

_LOOKS = 20  # of the watchdog, five seconds: gRPC frees a call's message soon after its end


class HalfSent:
    """Gives memory back some looks after calls ended without their requests: at most once in so many looks.

    `ended` is called by the thread that reads calls, `look` by the watchdog's.
    """

    def __init__(self, trim: Callable[[], object] = trim_heap) -> None:
        self._trim = trim
        self._looks_left = 0

    def ended(self) -> None:
        """A call has ended, and may have brought half of a message."""
        if not self._looks_left:  # else callers who come and go would put it off for ever
            self._looks_left = _LOOKS

    def look(self) -> None:
        """Give memory back if it is time."""
        if self._looks_left:
            self._looks_left -= 1
            if not self._looks_left:
                self._trim()
