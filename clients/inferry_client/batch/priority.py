"""How a job shares its machine with servers and their callers, and its interpreter among its own threads."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

DECODER_NICE = 5
"""Of a decoding process, beyond the thread that starts it: others on this machine go first, then the job's threads."""
_THREAD_NICE = 5  # before the decoders, which wait for what these threads hand out
_SWITCH_INTERVAL_S = 0.0005
PROCESS_NICE = os.getpriority(os.PRIO_PROCESS, 0) if sys.platform == "linux" else 0
"""As the process was started: how far its threads give way counts from there."""


def give_way() -> None:
    """Let others on this machine go before the calling thread, and those that it starts from now on, for good.

    Called again it changes nothing. Linux alone has priorities of threads.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):
            nice = max(os.getpriority(os.PRIO_PROCESS, thread), PROCESS_NICE + _THREAD_NICE)
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
