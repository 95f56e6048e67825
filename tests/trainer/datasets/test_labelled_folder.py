from pathlib import Path

import pytest
from PIL import Image

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_trainer.datasets.folder import FolderOptions, find_pictures, load_folder
from inferry_trainer.datasets.labelled_folder import read_labelled_folder
from inferry_trainer.errors import DatasetError

SPEC = Preprocessing(color_mode=Preprocessing.RGB, height=8, width=8, filter=Preprocessing.BILINEAR)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of four pictures, with what macOS, Jupyter and archives leave beside them."""
    for label in ("a", "b"):
        for number in range(4):
            path = tmp_path / label / "deeper" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, len(label), ord(label))).save(path)
    junk = b"\x00\x05\x16\x07 no picture"
    for name in ("a/._0.png", "a/deeper/.DS_Store.png", "b/.ipynb_checkpoints/0-checkpoint.png", "b/__MACOSX/._1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(junk)
    for name in (".ipynb_checkpoints", "__MACOSX"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(junk)
    return tmp_path


def test_what_programs_leave_beside_pictures_judges_no_model(pictures: Path) -> None:
    assert len(read_labelled_folder(pictures, ("a", "b"), SPEC)) == 8
    assert len(find_pictures(pictures)) == 8


def test_a_run_passes_over_the_same_files(pictures: Path) -> None:
    dataset = load_folder(pictures, FolderOptions(), validation_images=2, seed=1)
    assert dataset.labels == ("a", "b")
    assert sum(len(part) for part in (dataset.train, dataset.validation, dataset.test)) == 8


def test_a_folder_may_itself_lie_in_a_hidden_one(pictures: Path, tmp_path: Path) -> None:
    hidden = tmp_path / ".cache" / "set"
    (hidden / "a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(hidden / "a" / "0.png")
    assert len(find_pictures(hidden)) == 1


def test_many_missing_labels_are_counted_not_listed(pictures: Path) -> None:
    labels = ("a", "b", *(f"class {number}" for number in range(997)))
    with pytest.raises(DatasetError, match=r"missing class 0, .*class 4 and 992 more$"):
        read_labelled_folder(pictures, labels, SPEC)
