"""Which pictures of a large folder a load test sends."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client.load.choosing import spread
from inferry_client.load.payloads import picture_files
from testkit import brightness_model


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 100))
def test_every_folder_has_as_many_and_the_larger_ones_what_is_left(sizes: list[int], most: int) -> None:
    files = [Path(f"{label:02}/{number:03}") for label, size in enumerate(sizes) for number in range(size)]
    chosen = spread(files, most)
    assert len(chosen) == len(set(chosen)) == min(most, len(files))
    assert set(chosen) <= set(files)
    counts = Counter(int(file.parent.name) for file in chosen)
    for label, size in enumerate(sizes):  # nobody has fewer than another who could have had more
        assert counts[label] in (size, *range(max(counts.values()) - 1, size)) or most < len(sizes)
    places = [file.parent for file in chosen[: len(counts)]]
    assert len(set(places)) == len(places)  # all folders come before one comes again


def test_the_pictures_of_a_folder_are_at_equal_distances() -> None:
    files = [Path(f"a/{number:03}") for number in range(100)]
    assert [int(file.name) for file in spread(files, 4)] == [0, 25, 50, 75]


def test_pictures_of_all_labels_are_sent_and_what_is_left_out_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("bright", "dark", "grey"):
        brightness_model.write_pictures(tmp_path / label, 150)
    labels = Counter(file.parent.name for file in picture_files(tmp_path))
    assert sorted(labels.items()) == [("bright", 85), ("dark", 85), ("grey", 86)]
    assert capsys.readouterr().err == "inferry: 256 of the 450 pictures are sent, of every folder as many\n"
    assert len(picture_files(tmp_path / "dark")) == 150
    assert capsys.readouterr().err == ""
