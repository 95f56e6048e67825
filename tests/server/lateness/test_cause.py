"""The main cause of a late request, case by case; no clock, no server."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.batching.policy import Lane
from inferry_server.lateness.cause import main_cause
from inferry_server.lateness.record import LateRequest, RideInBatch

ALONE = RideInBatch(rows=1, padded_rows=1, requests=1, expected_s=0.0)
FULL = RideInBatch(rows=32, padded_rows=32, requests=32, expected_s=0.03)
QUICK = LateRequest(
    request_id="r", trace_id="", ended_at=1.0, rows=1, lane=Lane.INTERACTIVE, deadline_s=None,
    read_s=0.001, queue_s=0.001, compute_s=0.001, reply_s=0.001, batch=ALONE,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"read_s": 0.05},
            "50.0 of 53.0 ms until it was read and decoded: it or its pictures were large, or more calls",
        ),
        ({"queue_s": 0.05, "turn_s": 0.03}, "waited 30.0 of 53.0 ms for its turn"),
        ({"queue_s": 0.05, "turn_s": 0.01, "rows_ahead": 12}, "50.0 of 53.0 ms in lane interactive, behind 12 rows"),
        ({"queue_s": 0.05, "rows_ahead": 1, "lane": Lane.BULK}, "lane bulk, behind 1 row"),
        ({"queue_s": 0.05}, "behind no other request"),
        ({"queue_s": 0.05, "rows": 64, "batch": FULL}, "64 rows were computed in several batches"),
        ({"compute_s": 0.05}, "the model took 50.0 of 53.0 ms for 1 row"),
        ({"compute_s": 0.05, "batch": FULL}, "32 rows, 31 of them of 31 other requests"),
        ({"compute_s": 0.07, "batch": FULL}, "where 30.0 ms were expected"),
        ({"compute_s": 0.05, "batch": replace(ALONE, padded_rows=8)}, "and 7 of padding"),
        ({"reply_s": 0.05}, "making its reply took 50.0 of 53.0 ms"),
        ({"reply_s": 0.05, "batch": FULL}, "among those of 31 other requests"),
    ],
)
def test_the_part_that_took_longest_is_named_with_what_caused_it(changed: dict[str, Any], said: str) -> None:
    assert said in main_cause(replace(QUICK, **changed))


@pytest.mark.parametrize(
    ("reason", "changed", "said"),
    [
        ("overloaded", {"rows_ahead": 90}, "90 rows waited in lane interactive when it came"),
        ("queue_full_rows", {"rows": 2, "rows_ahead": 1023}, "no room for its 2 rows: 1023 rows waited"),
        ("queue_full_total_bytes", {"rows": 2}, "took the room there is when its 2 rows came"),
        ("deadline_at_admission", {"deadline_s": 0.0005}, "had passed by 0.5 ms"),
        ("deadline_at_admission", {"deadline_s": 0.004}, "had 3.0 ms left when it came"),
        ("deadline_in_queue", {"queue_s": 0.02, "rows_ahead": 4}, "waited 20.0 ms in lane interactive behind 4 rows"),
        ("signature_mismatch", {"message": "expected FP32"}, "expected FP32"),
        ("unexpected_error", {}, "unexpected_error"),
    ],
)
def test_what_was_refused_says_why(reason: str, changed: dict[str, Any], said: str) -> None:
    assert said in main_cause(replace(QUICK, batch=None, reason=reason, **changed))


SECONDS = st.floats(0, 1e4)


@given(
    parts=st.tuples(SECONDS, SECONDS, SECONDS, SECONDS),
    rows=st.integers(1, 1000),
    ahead=st.integers(0, 1000),
    batch=st.none() | st.builds(RideInBatch, rows=st.integers(1, 99), padded_rows=st.integers(1, 999),
                                requests=st.integers(1, 99), expected_s=SECONDS),
    reason=st.sampled_from(["", "overloaded", "deadline_at_admission", "something_new"]),
)  # fmt: skip
def test_there_is_one_sentence_for_every_request(
    parts: tuple[float, float, float, float], rows: int, ahead: int, batch: RideInBatch | None, reason: str
) -> None:
    read_s, queue_s, compute_s, reply_s = parts
    request = replace(
        QUICK, read_s=read_s, queue_s=queue_s, compute_s=compute_s, reply_s=reply_s, turn_s=queue_s / 3, rows=rows,
        rows_ahead=ahead, batch=batch, reason=reason,
    )  # fmt: skip
    said = main_cause(request)
    assert said
    assert "\n" not in said
    assert not said.endswith(".")
