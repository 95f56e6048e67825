import ctypes
import platform
import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from inferry_server.runtime.memory import AllocationBound, available_bytes, first_numbers, trim_heap

LARGE = 4 << 30
"""Larger than any hole that other tests leave in the heap, from which the C library takes without asking the system."""


def test_memory_is_given_back_where_the_c_library_can() -> None:
    assert trim_heap() is (platform.libc_ver()[0] == "glibc")


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert trim_heap() is False


def test_memory_that_is_left_is_the_least_that_machine_and_container_leave(tmp_path: Path) -> None:
    meminfo, limit, used, stat = (tmp_path / name for name in ("meminfo", "limit", "used", "stat"))
    assert available_bytes(meminfo, limit, used, stat) == 1 << 62
    meminfo.write_text("MemTotal:  100 kB\nMemAvailable:  50 kB\n")
    assert available_bytes(meminfo, limit, used, stat) == 50 << 10
    limit.write_text("max\n")
    used.write_text("1000\n")
    assert available_bytes(meminfo, limit, used, stat) == 50 << 10
    limit.write_text("3000\n")
    assert available_bytes(meminfo, limit, used, stat) == 2000
    stat.write_text("anon 5\nactive_file 300\ninactive_file 400\n")
    assert available_bytes(meminfo, limit, used, stat) == 2700
    used.write_text("9000\n")
    assert available_bytes(meminfo, limit, used, stat) == 0


def test_of_every_line_the_first_number_is_read_if_it_is_its_second_word(tmp_path: Path) -> None:
    path = tmp_path / "status"
    assert first_numbers(path) == {}
    path.write_text("Name:\tpython 3\nPid:\t 12\nThreads:\n34\nGroups:\t5 6\nMask:\t7f\nVmData:\t  89 kB\nanon 10")
    assert first_numbers(path) == {"Pid:": 12, "Groups:": 5, "VmData:": 89, "anon": 10}


@pytest.mark.skipif(sys.platform != "linux", reason="the limit counts what is mapped on Linux only")
def test_what_there_is_no_memory_for_fails_while_a_version_is_loaded_and_no_longer() -> None:
    bound, before = AllocationBound(), resource.getrlimit(resource.RLIMIT_DATA)
    with bound.while_loading(threads=1, available=0):
        with pytest.raises(MemoryError):
            np.empty(LARGE, np.uint8)
        inner = resource.getrlimit(resource.RLIMIT_DATA)
        with bound.while_loading(threads=1, available=1 << 40):
            assert resource.getrlimit(resource.RLIMIT_DATA) == inner
        assert resource.getrlimit(resource.RLIMIT_DATA) == inner
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert np.empty(LARGE, np.uint8).nbytes == LARGE  # promised, never touched


@pytest.mark.skipif(sys.platform != "linux", reason="the limit counts what is mapped on Linux only")
def test_the_bound_follows_what_is_left_leaves_loads_alone_and_goes() -> None:
    bound, before = AllocationBound(), resource.getrlimit(resource.RLIMIT_DATA)
    bound.follow(available=0)
    try:
        with pytest.raises(MemoryError):
            np.empty(LARGE, np.uint8)
        with bound.while_loading(threads=1, available=1 << 40):
            inner = resource.getrlimit(resource.RLIMIT_DATA)
            bound.follow(available=0)
            assert resource.getrlimit(resource.RLIMIT_DATA) == inner
        bound.follow(available=1 << 40)
        assert np.empty(LARGE, np.uint8).nbytes == LARGE
        bound.follow(available=0)
        with pytest.raises(MemoryError):
            np.empty(LARGE, np.uint8)
    finally:
        bound.release()
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.parametrize("status", ["", "VmData: 100 kB\n"])
def test_nothing_is_bounded_where_nothing_is_known(tmp_path: Path, status: str) -> None:
    (tmp_path / "status").write_text(status)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    available = 0 if not status else 1 << 62
    with AllocationBound(tmp_path / "status").while_loading(threads=1, available=available):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
