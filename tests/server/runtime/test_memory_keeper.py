"""Free memory goes back after a burst, while the process does little, and not again and again."""

import ctypes
import logging
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.runtime.heap import BUSY_S, LEAST_BYTES, MUCH_BYTES, HeapTrimming, unused_bytes
from inferry_server.runtime.memory import trim_heap
from inferry_server.runtime.memory_keeper import MemoryKeeper
from testkit.clock import ManualClock

MIB = 1 << 20
BASE = 100 * MIB


@given(st.lists(st.tuples(st.integers(-MIB, LEAST_BYTES - MIB - 1), st.booleans())))
def test_what_comes_and_goes_below_what_is_worth_it_is_left_alone(looks: list[tuple[int, bool]]) -> None:
    trimming = HeapTrimming()
    assert not any(trimming.is_due(unused, busy=busy, now=float(second)) for second, (unused, busy) in enumerate(looks))


def test_what_a_burst_has_left_goes_back_as_soon_as_the_process_does_little() -> None:
    trimming = HeapTrimming()
    assert not trimming.is_due(BASE, busy=False, now=0)
    for second in range(1, 50):
        assert not trimming.is_due(BASE + MUCH_BYTES * 4, busy=True, now=float(second))
    assert trimming.is_due(BASE + LEAST_BYTES, busy=False, now=50)


def test_a_process_that_is_never_idle_gives_back_only_much_and_after_a_while() -> None:
    trimming, since = HeapTrimming(), 10.0
    trimming.is_due(BASE, busy=True, now=0)
    for unused, due in ((BASE + MUCH_BYTES - 1, False), (BASE + MUCH_BYTES, True)):
        assert not trimming.is_due(unused, busy=True, now=since)
        assert not trimming.is_due(unused, busy=True, now=since + BUSY_S - 1)
        assert trimming.is_due(unused, busy=True, now=since + BUSY_S) is due
        assert not trimming.is_due(BASE, busy=True, now=since + BUSY_S)  # gone by itself: it is not waited for
        since += 2 * BUSY_S


def test_what_could_not_go_back_is_not_tried_again_until_more_has_come() -> None:
    trimming = HeapTrimming()
    trimming.is_due(BASE, busy=False, now=0)
    stuck = BASE + LEAST_BYTES
    assert trimming.is_due(stuck, busy=False, now=1)
    trimming.gave_back(stuck)
    assert not trimming.is_due(stuck, busy=False, now=2)
    assert trimming.is_due(stuck + LEAST_BYTES, busy=False, now=3)
    trimming.gave_back(stuck)
    assert not trimming.is_due(BASE, busy=False, now=4)  # it has gone after all
    assert trimming.is_due(stuck, busy=False, now=5)


class Kept:
    """A keeper whose process the test plays."""

    def __init__(self) -> None:
        self.clock, self.cpu = ManualClock(), ManualClock()
        self.unused: int | None = BASE
        self.quiet = self.trims = 0
        self.keeper = MemoryKeeper(
            self._when_quiet, unused=lambda: self.unused, trim=self._trim, clock=self.clock, cpu_clock=self.cpu
        )

    def _when_quiet(self) -> None:
        self.quiet += 1

    def _trim(self) -> None:
        self.trims += 1
        self.unused = BASE

    def look(self, *, cpu_s: float) -> tuple[int, int]:
        """Look five seconds later; how often others were told so far, and how often it was trimmed."""
        self.clock.advance(5.0)
        self.cpu.advance(cpu_s)
        self.keeper.look()
        return self.quiet, self.trims


def test_a_busy_process_is_left_alone_and_a_quiet_one_trimmed_once_a_burst() -> None:
    kept = Kept()
    assert kept.look(cpu_s=0.0) == (1, 0)
    kept.unused = BASE + 3 * LEAST_BYTES
    assert kept.look(cpu_s=1.1) == (1, 0)
    assert kept.look(cpu_s=0.9) == (2, 1)
    assert kept.look(cpu_s=0.9) == (3, 1)
    kept.unused = BASE + LEAST_BYTES
    assert kept.look(cpu_s=0.0) == (4, 2)


def test_what_has_come_before_the_first_look_goes_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    monkeypatch.setattr(kept.keeper, "_keep", lambda: None)
    kept.keeper.start()
    kept.unused = BASE + LEAST_BYTES
    assert kept.look(cpu_s=0.0) == (1, 1)


def test_where_nobody_knows_what_is_free_nothing_is_trimmed() -> None:
    kept = Kept()
    kept.unused = None
    assert kept.look(cpu_s=0.0) == (1, 0)


def test_a_look_that_fails_ends_neither_the_thread_nor_the_next_look(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("inferry_server.runtime.memory_keeper.LOOK_EVERY_S", 0.001)
    looks, done = iter(range(3)), threading.Event()

    def when_quiet() -> None:
        if next(looks, None) == 2:
            done.set()
        raise ValueError("a fault")

    keeper = MemoryKeeper(when_quiet, cpu_clock=lambda: 0.0)
    with caplog.at_level(logging.CRITICAL):
        keeper.start()
        assert done.wait(20)
        keeper.close()
        keeper._thread.join(20)


@pytest.mark.skipif(unused_bytes() is None, reason="this C library does not tell what its heaps hold")
def test_free_blocks_below_one_in_use_are_told_and_go_back() -> None:
    block, count = b"x" * 100_000, 1000
    size = len(block) * count
    trim_heap()
    before = unused_bytes()
    blocks = [block + bytes([number % 256]) for number in range(count)]
    above = [block + b"y" for _ in range(8)]  # in use: the heap does not shrink from its end
    held = unused_bytes()
    del blocks
    free = unused_bytes()
    trim_heap()
    after = unused_bytes()
    assert before is not None and held is not None and free is not None and after is not None  # noqa: PT018
    assert held - before < size / 2
    assert free - held > size / 2
    assert after - before < size / 2
    assert len(above) == 8


@pytest.mark.skipif(unused_bytes() is None, reason="this C library does not tell what its heaps hold")
def test_resident_memory_is_told_without_files_where_the_system_knows_and_nothing_where_it_does_not(
    tmp_path: Path,
) -> None:
    def told(text: str) -> int | None:
        (tmp_path / "status").write_text(text)
        return unused_bytes(tmp_path / "status")

    assert told("") is None
    both, whole = told("VmRSS: 900000000 kB\nRssAnon: 100 kB\n"), told("VmRSS: 900000000 kB\n")
    assert both is not None
    assert whole is not None
    assert both <= 100 << 10 < whole


def test_nothing_is_told_where_the_c_library_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert unused_bytes() is None
