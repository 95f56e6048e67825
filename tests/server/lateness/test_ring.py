"""Which requests are kept as late; the tests say what time it is."""

from hypothesis import given
from hypothesis import strategies as st

from inferry_server.batching.policy import Lane
from inferry_server.lateness.record import LateRequest
from inferry_server.lateness.ring import LateRequests


def late(seconds: float, reason: str = "", request_id: str = "") -> LateRequest:
    return LateRequest(
        request_id=request_id, trace_id="", ended_at=0.0, rows=1, lane=Lane.INTERACTIVE, deadline_s=None,
        read_s=seconds, reason=reason,
    )  # fmt: skip


def offer(ring: LateRequests, *seconds: float) -> None:
    """As whoever answers does."""
    for one in seconds:
        if one > ring.threshold_s:
            ring.keep_slow(late(one))


@given(st.lists(st.floats(0.001, 10), max_size=60), st.integers(1, 8))
def test_the_slowest_are_kept_and_no_more_than_that(seconds: list[float], size: int) -> None:
    ring = LateRequests(size)
    offer(ring, *seconds)
    kept = [request.total_s for request in ring.slowest()]
    assert len(kept) == min(size, len(seconds))
    assert kept == sorted(seconds, reverse=True)[:size]
    assert ring.threshold_s == (kept[-1] if len(kept) == size else 0.0)


def test_the_slow_ones_of_the_last_minute_are_forgotten_after_two_windows() -> None:
    ring = LateRequests(2)
    ring.tick(0.0)
    offer(ring, 5.0, 6.0)
    ring.tick(61.0)
    offer(ring, 1.0)
    assert [request.total_s for request in ring.slowest()] == [6.0, 5.0]
    ring.tick(122.0)
    assert [request.total_s for request in ring.slowest()] == [1.0]
    offer(ring, 0.5)  # there is room in the new minute, so it is slow
    assert [request.total_s for request in ring.slowest()] == [1.0, 0.5]


def test_refusals_for_one_reason_do_not_push_out_the_others_and_become_cheap() -> None:
    ring = LateRequests(6)
    ring.keep_refused(late(0.1, "signature_mismatch"))
    for _ in range(100):
        if "overloaded" not in ring.known:
            ring.keep_refused(late(0.1, "overloaded"))
    assert [request.reason for request in ring.refused()] == ["overloaded"] * 4 + ["signature_mismatch"]
    ring.tick(0.0)
    assert not ring.known


def test_only_so_many_refusals_are_kept() -> None:
    ring = LateRequests(3)
    for turn in range(10):
        ring.tick(float(turn) * 2)
        ring.keep_refused(late(0.1, "overloaded", str(turn)))
    assert [request.request_id for request in ring.refused()] == ["9", "8", "7"]


def test_without_room_nothing_is_worth_keeping() -> None:
    ring = LateRequests(0)
    assert ring.threshold_s == float("inf")
    ring.keep_refused(late(0.1, "overloaded"))
    assert (ring.slowest(), ring.refused()) == ([], [])


def test_the_slowest_beyond_the_objective_is_logged_once_a_second() -> None:
    ring = LateRequests(0, objective_s=0.1)
    assert ring.tick(0.0) is None
    offer(ring, 0.05, 0.2, 0.5, 0.3)
    assert ring.tick(0.5) is None
    logged = ring.tick(1.0)
    assert logged is not None
    assert logged.total_s == 0.5
    offer(ring, 0.2)
    logged = ring.tick(2.0)
    assert logged is not None
    assert logged.total_s == 0.2
    assert ring.tick(3.0) is None


def test_what_is_refused_for_its_deadline_is_beyond_the_objective_too() -> None:
    ring = LateRequests(1, objective_s=0.1)
    ring.keep_refused(late(0.01, "signature_mismatch"))
    assert ring.tick(1.0) is None
    ring.keep_refused(late(0.01, "overloaded"))
    logged = ring.tick(2.0)
    assert logged is not None
    assert logged.reason == "overloaded"
