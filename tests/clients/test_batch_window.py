"""How many requests a batch job has under way."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client.batch.window import Limit, Window
from inferry_client.errors import RequestCancelledError


@given(st.integers(1, 64), st.lists(st.booleans()))
def test_the_limit_stays_between_one_and_the_most(most: int, refusals: list[bool]) -> None:
    limit = Limit(most=most)
    for refused in refusals:
        number = limit.send()
        limit.refused(number) if refused else limit.answered()
        assert 1 <= limit.value <= most


def test_refusals_of_requests_sent_together_halve_the_limit_once() -> None:
    limit = Limit(most=16)
    numbers = [limit.send() for _ in range(16)]
    for number in numbers:
        limit.refused(number)
    assert limit.value == 8
    limit.refused(limit.send())
    assert limit.value == 4


def test_answers_raise_the_limit_by_about_one_a_round() -> None:
    limit = Limit(most=16)
    limit.refused(limit.send())
    for _ in range(9):
        limit.answered()
    assert limit.value == 9


def test_no_more_requests_have_a_place_than_the_limit() -> None:
    window, stop = Window(Limit(most=2)), threading.Event()
    with window.place(stop), window.place(stop), ThreadPoolExecutor(1) as pool:
        third = pool.submit(window.place(stop).__enter__)
        assert not third.done()
        stop.set()
        with pytest.raises(RequestCancelledError, match="the job was stopped"):
            third.result(10)


@given(
    queue=st.integers(1, 32),
    most=st.integers(1, 64),
    others=st.lists(st.integers(0, 12), min_size=200, max_size=200),
)
def test_a_job_beside_others_loses_no_request_asks_less_while_they_come_and_all_again_later(
    queue: int, most: int, others: list[int]
) -> None:
    """Each turn a server answers four requests, others first; its bulk lane holds some, and the rest is refused."""
    limit, waiting, sent, answered = Limit(most=most), list[int](), 0, 0
    refusals = []
    for turn in range(400):
        capacity = 4 - min(4, others[turn]) if turn < len(others) else 4
        for _ in range(min(capacity, len(waiting))):
            waiting.pop(0)
            limit.answered()
            answered += 1
        refused = 0
        for _ in range(limit.value - len(waiting)):
            number = limit.send()
            sent += 1
            if len(waiting) < queue:
                waiting.append(number)
            else:
                limit.refused(number)
                refused += 1
        refusals.append(refused)
        assert len(waiting) <= min(queue, most)
    assert sent == answered + len(waiting) + sum(refusals)
    # a full server halves the requests, so that what is refused in a turn is soon a few, not all that could be sent
    assert max(refusals[20:], default=0) <= most // 2 + 1
    assert sum(refusals[-100:]) <= 100
    assert len(waiting) >= min(queue, most) // 2  # and whoever is left alone has the server at work
