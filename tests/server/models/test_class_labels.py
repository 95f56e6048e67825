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


@pytest.mark.parametrize(
    ("text", "labels"),
    [("a\n\nb\n\n \n", ("a", "", "b")), ("a b \n\n", ("a b ",)), (" a", (" a",)), ("a\n ", ("a",)), ("\n \n", None)],
)
def test_only_blank_lines_at_the_end_are_no_labels(tmp_path: Path, text: str, labels: tuple[str, ...] | None) -> None:
    folder = version(tmp_path / "m")
    (tmp_path / "m" / "labels.txt").write_text(text)
    only = Signature((), (output("open", -1, -1),))
    assert read_labels(folder, only, batched=True) == ({} if labels is None else {"open": labels})


def test_a_file_that_fits_no_output_labels_the_only_one_or_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    only = Signature((), (output("season", -1, 4),))
    assert read_labels(version(tmp_path / "one", labels=FISH), only, batched=True) == {"season": FISH}
    assert "3 labels for output 'season' with 4 classes: classes without one are answered by index" in caplog.text
    assert read_labels(version(tmp_path / "two", labels=FISH[:2]), SEASON_FIRST, batched=True) == {}
    assert "labels.txt has 2 labels and names no classes: output 'season' has 4 classes, output 'fish'" in caplog.text


def test_labels_of_the_manifest_are_those_of_the_first_output_and_go_before_files(tmp_path: Path) -> None:
    folder = version(tmp_path / "m", labels=FISH, fishes=FISH)
    assert read_labels(folder, SEASON_FIRST, batched=True, recorded=SEASONS) == {"season": SEASONS}
    both = read_labels(folder, SEASON_FIRST, batched=True, recorded=SEASONS, named={"fish": "fishes.txt"})
    assert both == {"season": SEASONS, "fish": FISH}


@pytest.mark.parametrize("count", [0, 1, 2, 4, 9])
def test_more_or_fewer_labels_than_classes_are_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    lines = tuple(f"label {i}" for i in range(count))
    folder = version(tmp_path / "m", some=lines)
    assert read_labels(folder, SEASON_FIRST, batched=True, named={"fish": "some.txt"}) == {"fish": lines[:3]}
    assert f"{count} labels for output 'fish' with 3 classes" in caplog.text


def test_a_manifest_has_a_label_for_each_class(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="3 labels for output 'season' with 4 classes"):
        read_labels(version(tmp_path / "m"), SEASON_FIRST, batched=True, recorded=FISH)


def test_a_file_that_is_named_and_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"gone.txt, which config.pbtxt names for labels, is missing"):
        read_labels(version(tmp_path / "m"), SEASON_FIRST, batched=True, named={"fish": "gone.txt"})


@pytest.mark.parametrize(
    "content",
    [
        b"cod\neel\nray",
        b"cod\neel\nray\n\n",
        b"cod\r\neel\r\nray\r\n",
        b"\xef\xbb\xbfcod\neel\nray\n",
        b"cod\neel\nray\n \n\t\n",
    ],
)
def test_marks_and_blank_lines_of_editors_are_no_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    folder = version(tmp_path / "m")
    (folder / "labels.txt").write_bytes(content)
    assert read_labels(folder, SEASON_FIRST, batched=True) == {"fish": FISH}
    assert caplog.text == ""


def test_only_ends_of_lines_end_labels(tmp_path: Path) -> None:
    folder = version(tmp_path / "m", labels=("a\x0bb", "", "c\u2028d\x85"))
    assert read_labels(folder, SEASON_FIRST, batched=True) == {"fish": ("a\x0bb", "", "c\u2028d\x85")}


@given(st.lists(st.integers(1, 5), max_size=4))
def test_rows_are_no_classes(axes: list[int]) -> None:
    with_rows, alone = output("y", -1, *axes), output("y", *axes)
    assert class_count(with_rows, batched=True) == class_count(alone, batched=False)
    assert class_count(with_rows, batched=False) is None
