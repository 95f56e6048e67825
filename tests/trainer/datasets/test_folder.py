import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_trainer.cli import main
from inferry_trainer.datasets import Dataset, FilePart
from inferry_trainer.datasets.folder import FolderOptions, load_folder
from inferry_trainer.errors import ConfigError, DatasetError

SIZE = (20, 16)  # width, height


def write_pictures(folder: Path, *, count: int = 20, mode: str = "RGB", seed: int = 0) -> None:
    """Two classes: `dark` and `light`."""
    rng = np.random.default_rng(seed)
    for name, least in (("dark", 0), ("light", 150)):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(least, least + 100, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{index}.png")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures") / "shades"
    write_pictures(folder)
    return folder


@pytest.fixture
def pictures(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "shades"))


def load(folder: Path | None, *, seed: int = 1, validation: int = 0, options: FolderOptions | None = None) -> Dataset:
    return load_folder(folder, options or FolderOptions(), validation_images=validation, seed=seed)


def files(dataset: Dataset) -> list[set[Path]]:
    parts = (dataset.train, dataset.validation, dataset.test)
    return [set(part.files) for part in parts if isinstance(part, FilePart)]


def test_a_folder_for_each_class_is_split_with_each_class_in_every_part(original: Path) -> None:
    dataset = load(original)
    assert dataset.labels == ("dark", "light")
    train, validation, test = files(dataset)
    assert (len(train), len(validation), len(test)) == (29, 3, 8)
    assert not train & (validation | test)
    assert not validation & test
    assert np.bincount(dataset.test.labels).tolist() == [4, 4]
    assert dataset.image_shape == (16, 20, 3)
    assert dataset.train.prepare().images.shape == (29, 16, 20, 3)


def test_a_seed_chooses_validation_images_and_never_test_images(original: Path) -> None:
    one, again, two = (load(original, seed=seed, validation=8) for seed in (1, 1, 2))
    assert one.sha256 == again.sha256 != two.sha256
    assert files(one)[2] == files(two)[2]
    assert files(one)[1] != files(two)[1]


def test_size_and_colour_are_inferred_or_chosen(original: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "grey", mode="L")
    assert load(tmp_path / "grey").image_shape == (16, 20, 1)
    assert load(tmp_path / "grey", options=FolderOptions(color="rgb")).image_shape == (16, 20, 3)
    chosen = load(original, options=FolderOptions(color="grey", image_size=32))
    assert chosen.image_shape == (32, 32, 1)
    assert chosen.preprocessing.color_mode == Preprocessing.GRAYSCALE
    Image.new("RGB", (300, 200)).save(tmp_path / "grey" / "dark" / "large.jpg")
    assert load(tmp_path / "grey").image_shape == (64, 64, 3)


def test_unreadable_files_are_refused_by_name_or_left_out_when_asked(pictures: Path) -> None:
    whole = (pictures / "dark" / "0.png").read_bytes()
    (pictures / "dark" / "0.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "light" / "empty.jpg").touch()
    with pytest.raises(DatasetError, match=r"2 of 41 pictures cannot be read: .*; .*leave them out with") as caught:
        load(pictures)
    assert str(pictures / "dark" / "0.png") in str(caught.value)
    assert str(pictures / "light" / "empty.jpg") in str(caught.value)
    dataset = load(pictures, options=FolderOptions(skip_unreadable=True))
    assert sum(map(len, files(dataset))) == 39
    assert "left out as unreadable" in dataset.notes[0]


def test_what_is_no_picture_is_noted_and_what_is_hidden_is_not(pictures: Path) -> None:
    (pictures / "dark" / "readme.txt").touch()
    (pictures / "dark" / ".DS_Store").touch()
    (pictures / ".cache").mkdir()
    dataset = load(pictures)
    assert len(dataset.notes) == 1
    assert dataset.notes[0].startswith("1 files are not pictures by their names")


def test_copies_count_once_and_never_in_two_classes(pictures: Path) -> None:
    shutil.copy(pictures / "dark" / "0.png", pictures / "dark" / "copy.png")
    dataset = load(pictures)
    assert sum(map(len, files(dataset))) == 40
    assert dataset.notes == ("1 pictures are copies of others in their class; they are left out",)
    shutil.copy(pictures / "dark" / "0.png", pictures / "light" / "copy.png")
    with pytest.raises(DatasetError, match=r"dark/0\.png and .*light/copy\.png are the same picture in two classes"):
        load(pictures)


def test_too_few_classes_or_pictures_are_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folder needs --data-dir"):
        load(None)
    with pytest.raises(DatasetError, match="cannot be read as a folder of pictures: No such file"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="a folder for each of at least two, it holds no folder"):
        load(tmp_path / "empty")
    (pictures / "third").mkdir()
    with pytest.raises(DatasetError, match=r"third holds 0 pictures .* expected at least 3"):
        load(pictures)
    shutil.rmtree(pictures / "third")
    shutil.rmtree(pictures / "light")
    with pytest.raises(DatasetError, match=r"too few classes: .* only 'dark' is there"):
        load(pictures)


def test_folders_that_are_parts_are_not_taken_for_classes(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "split").mkdir()
    for part in ("train", "test"):
        shutil.copytree(pictures, tmp_path / "split" / part)
    with pytest.raises(DatasetError, match="holds test, train, which look like parts and not like classes"):
        load(tmp_path / "split")


@pytest.mark.parametrize("wrong", [{"color": "blue"}, {"image_size": 7}, {"image_size": 1025}])
def test_an_option_outside_its_range_is_refused(wrong: dict[str, int]) -> None:
    [name] = wrong
    with pytest.raises(ConfigError, match=f"{name} is .*; expected"):
        FolderOptions(**wrong)  # type: ignore[arg-type]


def test_your_own_pictures_train_with_one_command(original: Path, tmp_path: Path) -> None:
    flags = ["--data-dir", str(original), "--network", "all-conv", "--epochs", "2"]
    assert main(["run", "folder", "--out", str(tmp_path / "run"), *flags]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test_images"] == 8
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["labels"] == ["dark", "light"]
    assert config["config"]["network"] == "all-conv"
