"""Places in a piece of memory never overlap, and what was given back can be taken again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.front_ends.free_space import FreeSpace

SIZE = 1000
STEPS = st.lists(st.tuples(st.booleans(), st.integers(1, 400), st.integers(0, 100)), max_size=60)


@given(STEPS)
def test_places_lie_inside_and_apart_and_everything_comes_back(steps: list[tuple[bool, int, int]]) -> None:
    space = FreeSpace(SIZE)
    taken: dict[int, int] = {}
    for takes, size, which in steps:
        if takes:
            start = space.take(size)
            if start is not None:
                assert start + size <= SIZE
                assert all(start + size <= other or other + its <= start for other, its in taken.items())
                taken[start] = size
        elif taken:
            start = sorted(taken)[which % len(taken)]
            space.give_back(start)
            del taken[start]
        assert space.taken_bytes == sum(taken.values())
    for start in taken:
        space.give_back(start)
    assert space.take(SIZE) == 0


def test_the_lowest_place_that_is_large_enough_is_taken_first() -> None:
    space = FreeSpace(SIZE)
    assert [space.take(size) for size in (100, 50, 100, 750)] == [0, 100, 150, 250]
    assert space.take(1) is None
    space.give_back(250)
    space.give_back(100)
    assert [space.take(size) for size in (60, 50, 690)] == [250, 100, 310]


def test_a_place_is_given_back_once() -> None:
    space = FreeSpace(SIZE)
    start = space.take(10)
    assert start == 0
    space.give_back(start)
    with pytest.raises(KeyError):
        space.give_back(start)
