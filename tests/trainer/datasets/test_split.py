import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inferry_trainer.arrays import Int64Array
from inferry_trainer.datasets.split import shuffled_split, stratified_split
from inferry_trainer.errors import ConfigError

labels_of_sets = hnp.arrays(np.int64, st.integers(2, 300), elements=st.integers(0, 9))
seeds = st.integers(0, 2**32 - 1)


@given(st.data(), st.integers(2, 500), seeds)
def test_a_shuffled_split_gives_every_image_to_exactly_one_part(data: st.DataObject, count: int, seed: int) -> None:
    held_out = data.draw(st.integers(1, count - 1))
    kept, held = shuffled_split(count, held_out, seed=seed)
    assert len(held) == held_out
    assert sorted([*kept, *held]) == list(range(count))
    again = shuffled_split(count, held_out, seed=seed)
    assert np.array_equal(kept, again[0])
    assert np.array_equal(held, again[1])


@given(st.data(), labels_of_sets, seeds)
def test_a_stratified_split_leaves_every_class_its_share(data: st.DataObject, labels: Int64Array, seed: int) -> None:
    held_out = data.draw(st.integers(1, len(labels) - 1))
    kept, held = stratified_split(labels, held_out, seed=seed)
    assert len(held) == held_out
    assert sorted([*kept, *held]) == list(range(len(labels)))
    for label in np.unique(labels):
        share = (labels == label).sum() * held_out / len(labels)
        assert abs((labels[held] == label).sum() - share) < 1
    assert np.array_equal(held, stratified_split(labels, held_out, seed=seed)[1])


def test_another_seed_splits_otherwise() -> None:
    labels = np.arange(1000) % 10
    assert not np.array_equal(shuffled_split(1000, 100, seed=1)[1], shuffled_split(1000, 100, seed=2)[1])
    assert not np.array_equal(stratified_split(labels, 100, seed=1)[1], stratified_split(labels, 100, seed=2)[1])


@pytest.mark.parametrize("held_out", [0, -1, 10, 11])
def test_a_split_with_an_empty_part_is_refused(held_out: int) -> None:
    message = f"cannot hold out {held_out} of 10 images; expected 1 to 9"
    with pytest.raises(ConfigError, match=message):
        shuffled_split(10, held_out, seed=0)
    with pytest.raises(ConfigError, match=message):
        stratified_split(np.zeros(10, np.int64), held_out, seed=0)
