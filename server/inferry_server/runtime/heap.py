"""What the C library's heaps keep that nobody uses, and when that goes back to the system."""

import ctypes
from pathlib import Path

from inferry_server.runtime.memory import first_numbers

LEAST_BYTES = 32 << 20
"""That can be gained: less is what a burst of requests takes and leaves again and again."""
MUCH_BYTES = 256 << 20
"""That go back while the process is busy too, after `BUSY_S`."""
BUSY_S = 60.0


class _Heaps(ctypes.Structure):
    """glibc's `struct mallinfo2`, of all heaps together."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip

    uordblks: int
    hblkhd: int


def unused_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """Resident memory that the C library has given to nobody: free blocks, and what is none of its own.

    May be negative: what was given may not be resident yet.

    Returns:
        None where this C library or this system does not tell.
    """
    try:
        heaps = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return None
    told = first_numbers(status)
    resident_kib = told.get("RssAnon:", told.get("VmRSS:"))  # gVisor tells only all of it, with what files map
    if resident_kib is None:
        return None
    heaps.restype = _Heaps
    found: _Heaps = heaps()
    return (resident_kib << 10) - found.uordblks - found.hblkhd


class HeapTrimming:
    """Decides when the heaps' free memory goes back. No thread, no clock.

    Of what is resident and unused, a part is not the heaps' (Python's pools of small objects, stacks, libraries), and
    a part lies between blocks in use. The least that was seen since it last went back stands for both: what has come on
    top can go. It goes while the process does little, as it takes milliseconds, in which other threads may have to wait
    for a heap; where the process is never idle, only much of it goes, and seldom.
    """

    def __init__(self) -> None:
        self._least: int | None = None
        self._more_since: float | None = None

    def is_due(self, unused: int, *, busy: bool, now: float) -> bool:
        """Whether it is to go back now.

        Args:
            unused: bytes, as `unused_bytes` tells.
            busy: whether the process computes.
            now: in seconds, of any clock.
        """
        self._least = unused if self._least is None else min(self._least, unused)
        more = unused - self._least
        if more < LEAST_BYTES:  # guard: heap-worth-it
            self._more_since = None
            return False
        if self._more_since is None:
            self._more_since = now
        return not busy or (more >= MUCH_BYTES and now - self._more_since >= BUSY_S)  # guard: heap-busy

    def gave_back(self, unused: int) -> None:
        """It went back, and so much is unused still: that cannot go."""
        self._least, self._more_since = unused, None  # guard: heap-futile
