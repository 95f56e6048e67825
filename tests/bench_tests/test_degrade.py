"""The bound that stands beside what was useful under overload."""

import pytest

from bench.degrade import possible


@pytest.mark.parametrize(
    ("peak", "faster", "share"), [(100, 160, 0.8), (100, 200, 1.0), (100, 350, 1.0), (100, 80, 0.5)]
)
def test_no_more_of_twice_the_peak_can_be_useful_than_the_faster_of_both_answers(
    peak: float, faster: float, share: float
) -> None:
    assert possible(peak, faster) == pytest.approx(share)
