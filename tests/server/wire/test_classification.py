import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from inferry_proto.datatypes import DATATYPES
from inferry_server.wire.classification import CLASSIFIABLE, classify, top_classes


@given(st.data())
def test_scores_descend_ties_go_to_the_lower_index_and_nan_comes_last(data: st.DataObject) -> None:
    dtype = DATATYPES[data.draw(st.sampled_from(CLASSIFIABLE))].dtype
    scores: NDArray[np.generic] = data.draw(hnp.arrays(dtype, st.integers(1, 12)))
    order = top_classes(scores, len(scores))
    assert sorted(order) == list(range(len(scores)))
    for before, after in itertools.pairwise(order):
        a, b = scores[before], scores[after]
        if np.isnan(b):
            assert not np.isnan(a) or before < after
        else:
            assert a > b or (a == b and before < after)


def test_more_classes_than_there_are_give_all_of_them() -> None:
    assert top_classes(np.array([1, 3, 2]), 9) == [1, 2, 0]
    assert top_classes(np.array([1, 3, 2]), 2) == [1, 2]


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([[0.25, 0.75]], ("cat", "dog"), [[b"0.750000:1:dog", b"0.250000:0:cat"]]),
        ([[0.25, 0.75]], (), [[b"0.750000:1", b"0.250000:0"]]),
        ([[1.0, np.nan]], ("cat",), [[b"1.000000:0:cat", b"nan:1"]]),
    ],
)
def test_the_extension_writes_value_index_and_label(
    scores: list[list[float]], labels: tuple[str, ...], expected: list[list[bytes]]
) -> None:
    assert classify(np.array(scores), 2, labels).tolist() == expected
