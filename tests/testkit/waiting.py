"""Waiting for what another thread is about to do."""

import threading
from collections.abc import Callable

SOON_S = 20.0  # no step should take it; none waits longer
_LOOK_AGAIN_S = 0.001


def wait_until(condition: Callable[[], bool], what: str, *, look_again_s: float = _LOOK_AGAIN_S) -> None:
    """Wait until something holds; it is looked at again and again.

    Raises:
        AssertionError: it did not come to hold; the message names it.
    """
    pause = threading.Event()
    for _ in range(int(SOON_S / look_again_s)):
        if condition():
            return
        pause.wait(look_again_s)
    raise AssertionError(f"waited in vain for {what}")
