import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.plot import Panel, decades, draw, steps


@given(st.floats(0.01, 1e7))
def test_an_axis_reaches_beyond_its_figures(most: float) -> None:
    ticks = steps(most)
    assert ticks[0] == 0
    assert ticks[-1] >= most * (1 - 1e-9)
    assert 3 <= len(ticks) <= 9


@given(st.floats(0.001, 1e5), st.floats(1, 1e4))
def test_a_logarithmic_axis_encloses_its_figures(least: float, times: float) -> None:
    ticks = decades(least, least * times)
    assert len(ticks) >= 2
    assert ticks[0] <= least * (1 + 1e-9)
    assert ticks[-1] >= least * times * (1 - 1e-9)


def test_every_curve_is_drawn_with_its_name_inside_the_picture() -> None:
    panels = [
        Panel("images/s", {"Inferry <1>": {1: 900.0, 32: 3_000.0}, "Triton": {1: 800.0, 32: 2_900.0}}),
        Panel("p99", {"Inferry <1>": {1: 1.5, 32: 12.0}}, logarithmic=True),
    ]
    root = ElementTree.fromstring(draw([panels]))  # noqa: S314 - our own
    lines = [element for element in root.iter() if element.tag.endswith("polyline")]
    assert len(lines) == 3
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert texts.count("Inferry <1>") == 2
    for line in lines:
        points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
        assert len(points) == 2
        assert all(0 < x < 560 and 0 < y < 320 for x, y in points)


def test_what_a_logarithmic_axis_cannot_show_is_refused() -> None:
    with pytest.raises(ValueError, match="logarithmic"):
        draw([[Panel("p99", {"x": {1: 0.0}}, logarithmic=True)]])
