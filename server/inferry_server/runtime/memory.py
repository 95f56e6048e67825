"""Giving memory back to the system once a model is gone, and how much there is."""

import ctypes
from pathlib import Path


def trim_heap() -> bool:
    """Return the free pages of glibc's heaps to the system.

    glibc maps large blocks one by one at first. Once such a block was freed, it takes blocks up to
    that size (32 MiB at most) from its heaps, and a heap shrinks only from its end: the weights of
    a version that is gone stay resident as free memory, each thread's heap with holes of its own.

    Returns:
        False where this C library has no such call.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return False
    trim(0)
    return True


def available_bytes(
    meminfo: Path = Path("/proc/meminfo"),
    limit: Path = Path("/sys/fs/cgroup/memory.max"),
    used: Path = Path("/sys/fs/cgroup/memory.current"),
    reclaimable: Path = Path("/sys/fs/cgroup/memory.stat"),
) -> int:
    """Memory that this process can still take: what the machine and the container's limit leave; else no bound.

    Pages of files that were read count as free: the kernel gives them up.
    """
    available = _fields(meminfo).get("MemAvailable:")
    bounds = [_UNBOUNDED] if available is None else [available << 10]
    most, taken = _number(limit), _number(used)
    if most is not None and taken is not None:
        cached = _fields(reclaimable)
        bounds.append(max(0, most - taken + cached.get("inactive_file", 0) + cached.get("active_file", 0)))
    return min(bounds)


_UNBOUNDED = 1 << 62


def _fields(path: Path) -> dict[str, int]:
    """The first number of every line, by its first word; empty where there is no such file."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def _number(path: Path) -> int | None:
    """The number a file holds; None for `max`, or where there is no such file."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
