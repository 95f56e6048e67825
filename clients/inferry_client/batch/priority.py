"""How a job shares its machine with servers and their callers, and its interpreter among its own threads."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

DECODER_NICE = 10
"""Of a decoding process: whoever waits for an answer on this machine goes first."""
_THREAD_NICE = 5  # before the decoders, which wait for what these threads hand out
_SWITCH_INTERVAL_S = 0.0005


def give_way() -> None:
    """Let others on this machine go before the calling thread, for good. Linux alone has priorities of threads."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):
            nice = os.getpriority(os.PRIO_PROCESS, thread) + _THREAD_NICE
            os.setpriority(os.PRIO_PROCESS, thread, nice)


@contextmanager
def quick_switches() -> Iterator[None]:
    """Inside, a thread waits half a millisecond for one that computes, where Python lets it wait five.

    Some ten times on its way a chunk waits for the interpreter, while a part is being made for tens of milliseconds:
    with Python's own interval decoders ran out of chunks meanwhile.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, _SWITCH_INTERVAL_S))
    try:
        yield
    finally:
        sys.setswitchinterval(before)
