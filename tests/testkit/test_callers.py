"""Callers on threads: all call, none after the end, and one that breaks is not overlooked."""

from collections import Counter
from collections.abc import Callable

import pytest

from testkit.callers import Callers
from testkit.waiting import wait_until


class Counting(Callers):
    """Callers that count how often each has asked."""

    def __init__(self, count: int, ask: Callable[[int], object] = str) -> None:
        super().__init__(count)
        self._ask = ask
        self.asked: Counter[int] = Counter()

    def call(self, number: int) -> None:
        while self.goes_on(0):
            self.asked[number] += 1
            self._ask(number)


def test_every_caller_asks_until_the_end_and_none_after_it() -> None:
    with Counting(3) as callers:
        wait_until(lambda: min(callers.asked[number] for number in range(3)) > 1, "two requests of each caller")
    asked = callers.asked.copy()
    assert not callers.goes_on(0)
    assert callers.asked == asked


def test_the_end_cuts_a_pause_short() -> None:
    class Pausing(Callers):
        def call(self, number: int) -> None:
            while self.goes_on(3600):
                raise AssertionError("the pause is over")

    with Pausing(2):
        pass


def test_a_caller_that_breaks_is_told_at_the_end_and_the_others_go_on() -> None:
    def ask(number: int) -> None:
        if number == 0:
            raise ValueError("no answer of ours")

    callers = Counting(2, ask)
    callers.start()
    wait_until(lambda: callers.asked[0] == 1 and callers.asked[1] > 1, "the caller that is left")
    with pytest.raises(RuntimeError, match="1 of 2 callers broke") as told:
        callers.end()
    assert str(told.value.__cause__) == "no answer of ours"
