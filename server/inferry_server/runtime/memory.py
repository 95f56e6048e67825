"""Gives free memory back to the system, tells how much is left, and bounds what may be allocated."""

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
    """Bytes that this process can still take: what the machine and the container's limit leave; else no bound.

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
    """Lets allocations fail for which there is no memory, instead of the process being ended.

    Linux lets a process allocate more memory than there is, and ends it when it uses that memory: a graph with one
    constant of 100 GB would end the server with all its models, and so would a request whose model makes a tensor as
    large as its data says. With a bound (RLIMIT_DATA) the allocation fails, and with it only that model or request. The
    bound is one and a half times what is left, and some for stacks, as not all that is allocated is used. It counts
    what all threads allocate meanwhile. Thread-safe. The first of several loads that overlap sets the bound, and
    `follow` leaves it alone while a load is under way.
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
            if not self._loads:  # what another load has allocated must not raise the bound
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
    """Bytes that may be allocated in all; None where nothing is known."""
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
