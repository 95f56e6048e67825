"""Giving memory back to the system once a model is gone, and how much there is."""

import contextlib
import ctypes
import re
import resource
import sys
import threading
from collections.abc import Iterator
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
    available = first_numbers(meminfo).get("MemAvailable:")
    bounds = [_UNBOUNDED] if available is None else [available << 10]
    most, taken = _number(limit), _number(used)
    if most is not None and taken is not None:
        cached = first_numbers(reclaimable)
        bounds.append(max(0, most - taken + cached.get("inactive_file", 0) + cached.get("active_file", 0)))
    return min(bounds)


def first_numbers(path: Path) -> dict[str, int]:
    """The first number of every line, by its first word; empty where there is no such file."""
    try:
        text = path.read_text()
    except OSError:
        return {}
    return {word: int(number) for word, number in _NUMBERED.findall(text)}


_NUMBERED = re.compile(r"^(\S+)[ \t]+(\d+)(?!\S)", re.MULTILINE)
_UNBOUNDED = 1 << 62


class AllocationBound:
    """Lets allocations fail that there is no memory for, instead of ending the process.

    Linux promises more memory than there is, and ends a process that uses it: a graph with one constant of 100 GB would
    end all models that are served, and so would a request whose model makes a tensor as large as its data says. Bounded
    in what it may be promised, the allocation fails, and with it that model, or request, alone. The bound is half as
    much again as is left, and some for stacks: address space is promised that nobody uses. It counts what all threads
    allocate meanwhile. Thread-safe; of loads that overlap the first sets it, and while one is under way `follow` leaves
    it alone.
    """

    def __init__(self, status: Path = Path("/proc/self/status")) -> None:
        self._status = status
        self._lock = threading.Lock()
        self._loads = 0
        self._follows = False
        self._before = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)

    @contextlib.contextmanager
    def while_loading(self, *, threads: int, available: int | None = None) -> Iterator[None]:
        """Bound what is allocated in the block.

        Args:
            threads: that ONNX Runtime may start for the version.
            available: bytes; else those of the machine and the container.
        """
        room = available_bytes() if available is None else available
        with self._lock:
            if not self._loads:  # what a load under way was promised must not raise the bound of the next
                self._remember()
                _set_soft_limit(self._before, _bound(first_numbers(self._status).get("VmData:"), room, threads))
            self._loads += 1
        try:
            yield
        finally:
            with self._lock:
                self._loads -= 1
                if not self._loads and not self._follows:  # guard: memory-bound-lifted
                    resource.setrlimit(resource.RLIMIT_DATA, self._before)

    def follow(self, available: int | None = None) -> None:
        """Bound what is allocated until the next call, by what is left now; to be called every second or so.

        Args:
            available: bytes; else those of the machine and the container.
        """
        room = available_bytes() if available is None else available
        with self._lock:
            if not self._loads:  # guard: memory-load-bound
                self._remember()
                self._follows = True
                _set_soft_limit(self._before, _bound(first_numbers(self._status).get("VmData:"), room, 0))

    def release(self) -> None:
        """Bound nothing any more, but for loads under way."""
        with self._lock:
            if self._follows and not self._loads:
                resource.setrlimit(resource.RLIMIT_DATA, self._before)
            self._follows = False

    def _remember(self) -> None:
        if not self._follows:
            self._before = resource.getrlimit(resource.RLIMIT_DATA)


ALLOCATIONS = AllocationBound()
"""The bound of the whole process, as the limit holds for all of it."""


_STACK_BYTES = 8 << 20
_SLACK_BYTES = 256 << 20


def _set_soft_limit(before: tuple[int, int], wanted: int | None) -> None:
    if wanted is not None and sys.platform == "linux":
        soft = min(limit for limit in (wanted, *before) if limit != resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, before[1]))


def _bound(promised_kib: int | None, available: int, threads: int) -> int | None:
    """Bytes that may be promised; None where nothing is known."""
    if promised_kib is None or available >= _UNBOUNDED:
        return None
    return (promised_kib << 10) + available + available // 2 + threads * _STACK_BYTES + _SLACK_BYTES


def _number(path: Path) -> int | None:
    """The number a file holds; None for `max`, or where there is no such file."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
