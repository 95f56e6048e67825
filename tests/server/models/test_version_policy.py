"""Which versions a policy picks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.models.version_policy import NEWEST, All, Latest, Specific, VersionPolicy, versions_to_serve

VERSIONS = st.lists(st.integers(1, 50))


def policies() -> st.SearchStrategy[VersionPolicy]:
    specific = st.lists(st.integers(1, 50), min_size=1).map(tuple).map(Specific)
    return st.one_of(st.builds(Latest, st.integers(1, 60)), st.just(All()), specific)


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        (NEWEST, (10,)),
        (Latest(2), (9, 10)),
        (Latest(9), (1, 9, 10)),
        (All(), (1, 9, 10)),
        (Specific((9, 7, 1, 9)), (1, 9)),
        (Specific((7,)), ()),
    ],
)
def test_a_policy_picks_by_number(policy: VersionPolicy, served: tuple[int, ...]) -> None:
    assert versions_to_serve(policy, [10, 1, 9]) == served


@given(policies(), VERSIONS)
def test_what_is_served_is_there_and_ascends(policy: VersionPolicy, available: list[int]) -> None:
    served = versions_to_serve(policy, available)
    assert set(served) <= set(available)
    assert list(served) == sorted(set(served))


@given(VERSIONS, st.integers(1, 60))
def test_no_version_that_is_left_out_is_newer_than_the_latest_served(available: list[int], count: int) -> None:
    served = versions_to_serve(Latest(count), available)
    assert len(served) == min(count, len(set(available)))
    assert not any(version > min(served) for version in set(available) - set(served))


def test_a_policy_that_can_serve_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="latest serves 0 versions; expected at least 1"):
        Latest(0)
    for versions in ((), (0,), (2, -1)):
        with pytest.raises(ValueError, match="expected positive version numbers"):
            Specific(versions)
