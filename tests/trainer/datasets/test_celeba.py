import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from inferry_proto.preprocessing import prepare_image, prepare_pixels
from inferry_trainer.cli import main
from inferry_trainer.datasets import Dataset, FilePart
from inferry_trainer.datasets.celeba import ATTRIBUTES, IDENTITIES, IMAGES, PARTITION, PREPROCESSING, load_celeba
from inferry_trainer.errors import ConfigError, DatasetError
from inferry_trainer.training.augmentation_chapter import crop_to_box
from testkit.celeba_files import NAMES, write_celeba, write_lines


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_celeba(tmp_path_factory.mktemp("data") / "celeba")


@pytest.fixture
def celeba(official: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(official, tmp_path / "celeba"))


def load(
    folder: Path | None, *, attribute: str = "Male", train: int = 0, validation: int = 0, seed: int = 1
) -> Dataset:
    return load_celeba(
        attribute=attribute, data_dir=folder, train_images=train, validation_images=validation, seed=seed
    )


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def files(dataset: Dataset) -> list[list[str]]:
    parts = (dataset.train, dataset.validation, dataset.test)
    return [[file.name for file in part.files] for part in parts if isinstance(part, FilePart)]


def test_the_parts_are_the_data_sets_own(official: Path) -> None:
    dataset = load(official)
    assert [len(part) for part in files(dataset)] == [24, 8, 12]
    assert files(dataset)[2][0] not in files(dataset)[0] + files(dataset)[1]
    assert sorted(files(dataset)[2]) == [f"{number:06}.jpg" for number in range(33, 45)]
    assert dataset.labels == ("not Male", "Male")
    assert dataset.notes == ()
    assert load(official.parent).source == str(official)  # the folder above can be named too


def test_labels_are_the_attributes_of_the_files(official: Path) -> None:
    dataset = load(official, attribute="Smiling")
    rows = {row.split()[0]: row.split()[1:] for row in lines(official / ATTRIBUTES)[2:]}
    assert isinstance(dataset.train, FilePart)
    column = NAMES.index("Smiling")
    assert dataset.train.labels.tolist() == [int(rows[file.name][column] == "1") for file in dataset.train.files]
    assert set(dataset.test_groups) == {"Male", "Young", "Pale_Skin", "Eyeglasses", "Wearing_Hat", "Blurry"}
    assert all(members.shape == (12,) for members in dataset.test_groups.values())


def test_pixels_are_those_of_the_shared_preprocessing(official: Path) -> None:
    dataset = load(official)
    assert isinstance(dataset.test, FilePart)
    prepared = dataset.test.prepare()
    assert prepared.images.shape == (12, 64, 64, 3)
    assert np.array_equal(prepared.images[3], prepare_image(dataset.test.files[3].read_bytes(), PREPROCESSING))
    crop = dataset.preprocessing.crop
    assert (crop.top, crop.left, crop.height, crop.width) == (20, 0, 178, 178)


def test_a_seed_chooses_which_images_are_used(official: Path) -> None:
    one, again, two = (load(official, train=16, validation=4, seed=seed) for seed in (1, 1, 2))
    assert [len(part) for part in files(one)] == [16, 4, 12]
    assert one.sha256 == again.sha256 != two.sha256
    assert files(one)[2] == files(two)[2] != files(one)[0]
    with pytest.raises(ConfigError, match="train_images is 25; expected at most the 24 that are there, or 0 for all"):
        load(official, train=25)


def test_line_ends_trailing_spaces_padding_and_a_byte_order_mark_do_no_harm(celeba: Path) -> None:
    before = load(celeba)
    for name in (ATTRIBUTES, PARTITION, IDENTITIES):
        rows = [
            line.replace(" 1", "   1") if index % 3 else f"{line} " for index, line in enumerate(lines(celeba / name))
        ]
        write_lines(celeba / name, rows, end="\r\n")
    (celeba / ATTRIBUTES).write_bytes(b"\xef\xbb\xbf" + (celeba / ATTRIBUTES).read_bytes())
    after = load(celeba)
    assert files(after) == files(before)
    assert np.array_equal(after.train.labels, before.train.labels)


def test_fewer_attributes_than_forty_do_no_harm(celeba: Path) -> None:
    rows = lines(celeba / ATTRIBUTES)
    write_lines(celeba / ATTRIBUTES, [rows[0], *(" ".join(row.split()[:21]) for row in [f"- {rows[1]}", *rows[2:]])])
    header = lines(celeba / ATTRIBUTES)[1].split()[1:]
    write_lines(celeba / ATTRIBUTES, [rows[0], " ".join(header), *lines(celeba / ATTRIBUTES)[2:]])
    with pytest.raises(ConfigError, match="no attribute 'Male'; the nearest is 'Bald'"):
        load(celeba)
    assert len(load(celeba, attribute="Bangs").train) == 24


def test_fewer_rows_than_announced_and_missing_images_are_noted(celeba: Path) -> None:
    rows = lines(celeba / ATTRIBUTES)
    write_lines(celeba / ATTRIBUTES, ["202599", *rows[1:]])
    (celeba / IMAGES / "000003.jpg").unlink()
    (celeba / IMAGES / "000040.jpg").unlink()
    dataset = load(celeba)
    assert [len(part) for part in files(dataset)] == [23, 8, 11]
    assert dataset.notes == (
        f"{ATTRIBUTES} announces 202599 images and lists 44",
        f"2 listed images are not in {celeba / IMAGES}, 000003.jpg the first; they are left out",
    )


def test_nobody_is_in_two_parts(celeba: Path) -> None:
    rows = lines(celeba / IDENTITIES)
    rows[0] = "000001.jpg 44"  # a training image of someone in the test set
    rows[1] = "000002.jpg 30"  # and one of someone in the validation set
    rows[25] = "000026.jpg 44"  # a validation image of the same someone in the test set
    write_lines(celeba / IDENTITIES, rows)
    dataset = load(celeba)
    assert [len(part) for part in files(dataset)] == [22, 7, 12]
    assert dataset.notes == (f"3 images show someone who is in a later part too ({IDENTITIES}); they are left out",)
    (celeba / IDENTITIES).unlink()
    assert [len(part) for part in files(load(celeba))] == [24, 8, 12]


def test_an_attribute_that_does_not_exist_is_refused_with_the_nearest(official: Path) -> None:
    for wrong, nearest in (("smiling", "Smiling"), ("Glasses", "Eyeglasses"), ("male", "Male")):
        with pytest.raises(ConfigError, match=f"no attribute {wrong!r}; the nearest is {nearest!r}"):
            load(official, attribute=wrong)


@pytest.mark.parametrize("name", [ATTRIBUTES, PARTITION, IDENTITIES])
def test_a_web_page_saved_in_place_of_a_file_is_recognised(celeba: Path, name: str) -> None:
    (celeba / name).write_text("\n<!DOCTYPE html><html>Google Drive - Quota exceeded</html>")
    with pytest.raises(DatasetError, match="looks like a web page saved in its place; download it again") as caught:
        load(celeba)
    assert str(celeba / name) in str(caught.value)


@pytest.mark.parametrize("name", [ATTRIBUTES, PARTITION, IMAGES])
def test_a_missing_file_is_named(celeba: Path, name: str) -> None:
    if name == IMAGES:
        shutil.rmtree(celeba / name)
    else:
        (celeba / name).unlink()
    with pytest.raises(DatasetError, match=f"{name} is missing"):
        load(celeba)


@pytest.mark.parametrize(
    ("name", "number", "content", "message"),
    [
        (ATTRIBUTES, 0, "name, count", "not CelebA's list of attributes: expected a count"),
        (ATTRIBUTES, 5, "000004.jpg 1 -1", "line 6: expected a file name and 40 values of -1 or 1"),
        (ATTRIBUTES, 5, "000004.jpg " + "0 " * 40, "line 6: expected a file name and 40 values of -1 or 1"),
        (PARTITION, 3, "000004.jpg", "line 4: expected a file name and a number"),
        (PARTITION, 3, "000004.jpg 3", "expected 0, 1 or 2 for 000004.jpg; 3 came"),
        (PARTITION, 3, "999999.jpg 0", "does not say to which part 000004.jpg belongs"),
        (IDENTITIES, 3, "000004.jpg someone", "line 4: expected a file name and a number"),
    ],
)
def test_a_line_that_is_not_what_it_should_be_is_named(
    celeba: Path, name: str, number: int, content: str, message: str
) -> None:
    rows = lines(celeba / name)
    rows[number] = content
    write_lines(celeba / name, rows)
    with pytest.raises(DatasetError, match=message) as caught:
        load(celeba)
    assert str(celeba / name) in str(caught.value)


def test_a_part_without_images_and_an_attribute_everyone_has_are_refused(celeba: Path) -> None:
    rows = lines(celeba / ATTRIBUTES)
    same = [f"{row.split()[0]} {'1 ' * 40}" for row in rows[2:]]
    write_lines(celeba / ATTRIBUTES, [*rows[:2], *same])
    with pytest.raises(DatasetError, match="'Male' cannot be learned: all 24 training images have it"):
        load(celeba)
    for number in range(33, 45):
        (celeba / IMAGES / f"{number:06}.jpg").unlink()
    with pytest.raises(DatasetError, match="holds none of the test images"):
        load(celeba)


def test_where_celeba_is_not_there_the_message_says_how_to_get_it(no_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"not found in --data-dir \(not set\).*licence allows no redistribution"):
        load(None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="celeba was not found in --data-dir") as caught:
        load(tmp_path / "empty")
    assert "$INFERRY_DATA (" not in str(caught.value)


def test_celeba_is_found_in_the_environment_and_in_the_folders_of_its_download(
    celeba: Path, no_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for sub, name in (("Anno", ATTRIBUTES), ("Anno", IDENTITIES), ("Eval", PARTITION), ("Img", IMAGES)):
        (celeba / sub).mkdir(exist_ok=True)
        (celeba / name).rename(celeba / sub / name)
    monkeypatch.setenv("INFERRY_DATA", str(celeba.parent))
    assert load(None).source == str(celeba)


def test_the_chapters_recipe_trains_any_attribute_from_generated_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_celeba(tmp_path / "celeba", parts=(160, 32, 40), attribute="Smiling")
    flags = ["--data-dir", str(folder), "--attribute", "Smiling", "--train-images", "160", "--validation-images", "32"]
    assert main(["run", "celeba", "--out", str(tmp_path / "run"), *flags, "--epochs", "2"]) == 0, (
        capsys.readouterr().err
    )
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["parameters"] == 388_673
    assert metrics["test_images"] == 40
    assert metrics["test_accuracy"] > 0.9
    assert abs(metrics["training_pipeline_test_accuracy"] - metrics["test_accuracy"]) < 0.1


def test_a_damaged_photograph_is_named_when_its_turn_comes(
    celeba: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = celeba / IMAGES / "000005.jpg"
    damaged.write_bytes(damaged.read_bytes()[:200])
    flags = ["--data-dir", str(celeba), "--train-images", "0", "--validation-images", "0", "--epochs", "1"]
    assert main(["run", "celeba", "--out", str(tmp_path / "run"), *flags]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert f"{damaged} cannot be used: a damaged picture" in line


def test_a_photograph_of_other_proportions_is_named(celeba: Path) -> None:
    Image.new("RGB", (100, 100)).save(celeba / IMAGES / "000040.jpg")
    with pytest.raises(DatasetError, match=r"000040\.jpg cannot be used: the crop box"):
        load(celeba).test.prepare()


def test_a_larger_photograph_is_seen_as_the_data_sets_own(official: Path) -> None:
    with Image.open(official / IMAGES / "000001.jpg") as photograph:
        own = np.asarray(photograph)
        larger = np.asarray(photograph.resize((712, 872)))
    expected = prepare_pixels(own, PREPROCESSING).astype(int)
    assert np.abs(prepare_pixels(larger, PREPROCESSING) - expected).max() < 16  # the top left corner lies 40 away
    scaled = crop_to_box(tf.constant(larger, tf.float32) / 255, PREPROCESSING.crop)
    assert scaled.shape == (178, 178, 3)  # and training's own way agrees
