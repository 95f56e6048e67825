"""How much free memory the C library's heaps keep, and when to give it back to the system."""

import ctypes
from pathlib import Path

from inferry_server.runtime.memory import first_numbers

LEAST_BYTES = 32 << 20
"""Of free memory, before it is given back: every burst of requests takes and frees less than that."""
MUCH_BYTES = 256 << 20
"""Of free memory, before it is given back although the process is busy, once it has been free for `BUSY_S`."""
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
    """Resident memory outside of blocks in use: the C library's free blocks, and memory that is not its own.

    May be negative, as blocks in use need not be resident yet.

    Returns:
        None where this C library or this system does not tell.
    """
    try:
        heaps = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return None
    told = first_numbers(status)
    resident_kib = told.get("RssAnon:", told.get("VmRSS:"))  # gVisor tells only VmRSS, which includes mapped files
    if resident_kib is None:
        return None
    heaps.restype = _Heaps
    found: _Heaps = heaps()
    return (resident_kib << 10) - found.uordblks - found.hblkhd


class HeapTrimming:
    """Decides when to give the heaps' free memory back (to trim them). Has neither a thread nor a clock.

    Not all unused memory can be given back: some of it is not the heaps' (Python's pools of small objects, stacks,
    libraries), and some lies between blocks in use. The least unused memory since the last trimming stands for both;
    what has come on top of it can be given back. Trimming takes milliseconds, in which other threads may have to wait
    for a heap. So it is due while the process does little; where the process is never idle, it is due only for much
    memory, and seldom.
    """

    def __init__(self) -> None:
        self._least: int | None = None
        self._more_since: float | None = None

    def is_due(self, unused: int, *, busy: bool, now: float) -> bool:
        """Whether to trim the heaps now.

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
        """Note that the heaps were trimmed, and that so much is still unused: it cannot be given back."""
        self._least, self._more_since = unused, None  # guard: heap-futile
