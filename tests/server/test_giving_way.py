"""Longer work in pieces."""

from collections.abc import Iterator

import pytest

from inferry_server.giving_way import in_pieces
from testkit.clock import ManualClock


def test_others_go_on_after_every_piece_and_nothing_is_lost() -> None:
    clock, pauses = ManualClock(), list[float]()

    def parts() -> Iterator[int]:
        for us in (10, 10, 40, 5, 500, 500):
            clock.advance(us / 1e6)
            yield us

    assert list(in_pieces(parts(), clock=clock, pause=pauses.append)) == [10, 10, 40, 5, 500, 500]
    assert pauses == pytest.approx([19 * us / 1e6 for us in (60, 505, 500)])


def test_whoever_asks_for_much_waits_a_second_for_pauses_and_no_longer() -> None:
    clock, paused, others = ManualClock(), 0.0, list[float]()

    def parts() -> Iterator[None]:
        for _ in range(2000):
            clock.advance(1e-3)
            yield

    def pause(seconds: float) -> None:
        nonlocal paused
        paused += seconds
        others.append(seconds)
        clock.advance(seconds)

    assert sum(1 for _ in in_pieces(parts(), clock=clock, pause=pause)) == len(others) == 2000
    assert 0.9 < paused < 1.1
    assert min(others) > 0  # of no length, it gives nothing away
