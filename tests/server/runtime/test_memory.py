import ctypes
import platform
from pathlib import Path

import pytest

from inferry_server.runtime.memory import available_bytes, trim_heap


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
