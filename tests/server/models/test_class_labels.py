"""Labels belong to an output: whoever asks for classes of another one never gets them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto.datatypes import DATATYPES
from inferry_server.errors import ModelLoadError
from inferry_server.models.class_labels import class_count, read_labels
from inferry_server.models.config_pbtxt import read_model_settings
from inferry_server.signature import Signature, TensorSpec

FISH, SEASONS = ("cod", "eel", "ray"), ("spring", "summer", "autumn", "winter")


def output(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, DATATYPES["FP32"], shape)


SEASON_FIRST = Signature((), (output("season", -1, 4), output("fish", -1, 3)))


def version(model: Path, **files: tuple[str, ...]) -> Path:
    (model / "1").mkdir(parents=True)
    for name, lines in files.items():
        (model / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return model / "1"


def test_a_file_named_for_an_output_labels_that_one_in_whatever_order_they_are_declared(tmp_path: Path) -> None:
    folder = version(tmp_path / "m", fishes=FISH, times=SEASONS)
    (tmp_path / "m" / "config.pbtxt").write_text(
        'output { name: "fish" label_filename: "fishes.txt" } output { name: "season" label_filename: "times.txt" }'
    )
    settings = read_model_settings(tmp_path / "m")
    named = {one.name: one.label_file for one in settings.outputs if one.label_file}
    assert settings.ignored == ()
    assert read_labels(folder, SEASON_FIRST, batched=True, named=named) == {"fish": FISH, "season": SEASONS}
    assert read_labels(folder, SEASON_FIRST, batched=True, named={"fish": "fishes.txt"}) == {"fish": FISH}


def test_a_file_that_names_no_output_labels_the_one_with_as_many_classes(tmp_path: Path) -> None:
    assert read_labels(version(tmp_path / "a", labels=FISH), SEASON_FIRST, batched=True) == {"fish": FISH}
    scored = Signature((), (output("label", -1), output("scores", -1, 4)))  # as scikit-learn's classifiers have them
    assert read_labels(version(tmp_path / "b", labels=SEASONS), scored, batched=True) == {"scores": SEASONS}
    free = Signature((), (output("fish", -1, 3), output("open", -1, -1)))
    assert read_labels(version(tmp_path / "c", labels=SEASONS), free, batched=True) == {"open": SEASONS}
    with pytest.raises(ModelLoadError, match="2 labels; output 'season' has 4 classes, output 'fish' has 3 classes"):
        read_labels(version(tmp_path / "d", labels=FISH[:2]), SEASON_FIRST, batched=True)


def test_labels_of_the_manifest_are_those_of_the_first_output_and_go_before_files(tmp_path: Path) -> None:
    folder = version(tmp_path / "m", labels=FISH, fishes=FISH)
    assert read_labels(folder, SEASON_FIRST, batched=True, recorded=SEASONS) == {"season": SEASONS}
    both = read_labels(folder, SEASON_FIRST, batched=True, recorded=SEASONS, named={"fish": "fishes.txt"})
    assert both == {"season": SEASONS, "fish": FISH}


@pytest.mark.parametrize("named", ["season", "fish"])
def test_labels_that_are_not_one_for_each_class_of_their_output_are_refused(tmp_path: Path, named: str) -> None:
    folder = version(tmp_path / "m", few=("only",))
    with pytest.raises(ModelLoadError, match=f"1 labels for output '{named}' with"):
        read_labels(folder, SEASON_FIRST, batched=True, named={named: "few.txt"})


@given(st.lists(st.integers(1, 5), max_size=4))
def test_rows_are_no_classes(axes: list[int]) -> None:
    with_rows, alone = output("y", -1, *axes), output("y", *axes)
    assert class_count(with_rows, batched=True) == class_count(alone, batched=False)
    assert class_count(with_rows, batched=False) is None
