import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferry_trainer.blocks.padding import output_size, padding_widths, same_as_keras

sizes = st.integers(1, 20)
examples = settings(deadline=None)


@pytest.mark.parametrize(("n", "m", "p", "s", "expected"), [(10, 5, 2, 1, 10), (10, 3, 2, 2, 6)])
def test_output_size_is_the_chapters(n: int, m: int, p: int, s: int, expected: int) -> None:
    assert output_size(n, m, padding=p, stride=s) == expected


@pytest.mark.parametrize(("mode", "expected"), [("full", 7), ("same", 5), ("valid", 3)])
def test_the_three_modes_give_the_chapters_sizes(mode: str, expected: int) -> None:
    before, after = padding_widths(mode, 3)  # type: ignore[arg-type]  # a parameter is any str
    assert before == after
    assert output_size(5, 3, padding=before) == expected


@examples
@given(n=sizes, m=sizes)
def test_same_keeps_the_size_and_full_counts_every_overlap(n: int, m: int) -> None:
    assert n + sum(padding_widths("same", m)) - m + 1 == n
    assert n + sum(padding_widths("full", m)) - m + 1 == n + m - 1


@examples
@given(n=sizes, m=sizes, s=st.integers(1, 5))
def test_keras_same_gives_an_output_for_every_stride_begun(n: int, m: int, s: int) -> None:
    before, after = same_as_keras(n, m, s)
    assert 0 <= after - before <= 1
    padded = n + before + after
    assert padded < m or output_size(padded, m, stride=s) == (n + s - 1) // s


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3, 0, 1), "input size: expected at least 1; came 0"),
        ((5, 0, 0, 1), "filter size: expected at least 1; came 0"),
        ((5, 3, -1, 1), "padding: expected at least 0; came -1"),
        ((5, 3, 0, 0), "stride: expected at least 1; came 0"),
        ((5, 8, 1, 1), "filter size: expected at most the padded input's 7; came 8"),
    ],
)
def test_impossible_sizes_are_refused(arguments: tuple[int, int, int, int], message: str) -> None:
    n, m, p, s = arguments
    with pytest.raises(ValueError, match=message):
        output_size(n, m, padding=p, stride=s)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="came 'SAME'"):
        padding_widths("SAME", 3)  # type: ignore[arg-type]
