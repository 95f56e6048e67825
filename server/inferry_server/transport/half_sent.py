"""Memory of requests that did not come whole goes back to the system once their calls were ended."""

from collections.abc import Callable

from inferry_server.runtime.memory import trim_heap

_LOOKS = 4  # of the watchdog, a second: gRPC frees a call's message soon after its end


class HalfSent:
    """Gives memory back some looks after calls were ended for want of their requests.

    `ended` is called by the thread that ends calls, `look` by the watchdog's; a call that ends between two steps of
    `look` is given another round by the next one that ends.
    """

    def __init__(self, trim: Callable[[], object] = trim_heap) -> None:
        self._trim = trim
        self._looks_left = 0

    def ended(self) -> None:
        """Calls were ended, and may have brought half of a message."""
        self._looks_left = _LOOKS

    def look(self) -> None:
        """Give memory back if it is time."""
        if self._looks_left:
            self._looks_left -= 1
            if not self._looks_left:
                self._trim()
