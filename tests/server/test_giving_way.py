"""Longer work in pieces."""

from collections.abc import Iterator

from inferry_server.giving_way import in_pieces
from testkit.clock import ManualClock


def test_others_go_on_after_every_piece_and_nothing_is_lost() -> None:
    clock, pauses = ManualClock(), list[float]()

    def parts() -> Iterator[int]:
        for us in (10, 10, 40, 5, 500, 500):
            clock.advance(us / 1e6)
            yield us

    assert list(in_pieces(parts(), clock=clock, pause=pauses.append)) == [10, 10, 40, 5, 500, 500]
    assert len(pauses) == 3
    assert min(pauses) > 0  # of no length, it gives nothing away
