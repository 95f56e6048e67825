import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inferry_trainer.arrays import UInt8Array
from inferry_trainer.config import RunConfig
from inferry_trainer.datasets import NAMES, AnyPart, Dataset, load_dataset, mnist, takes_files
from inferry_trainer.datasets.digits import load_digits
from inferry_trainer.datasets.locate import cache_folder
from inferry_trainer.errors import ConfigError, DatasetError
from testkit.idx_files import describe_idx_dataset, encode_idx, write_idx_dataset


def load(source: mnist.IdxDataset, *, data_dir: Path | None = None, seed: int = 1) -> Dataset:
    return mnist.load_idx_dataset(source, data_dir=data_dir, validation_images=10, seed=seed)


def rows(part: AnyPart) -> set[bytes]:
    return {image.tobytes() for image in part.prepare().images}


def test_digits_are_28x28_grey_pixels_of_the_whole_range() -> None:
    digits = load_digits(validation_images=180, seed=1)
    assert [len(part) for part in (digits.train, digits.validation, digits.test)] == [1257, 180, 360]
    assert digits.train.prepare().images.shape[1:] == (28, 28, 1)
    assert digits.train.prepare().images.dtype == np.uint8
    assert (digits.train.prepare().images.min(), digits.train.prepare().images.max()) == (0, 255)
    assert set(digits.test.labels) == set(range(10))


def test_a_seed_chooses_validation_images_and_never_test_images() -> None:
    one, again, two = (load_digits(validation_images=180, seed=seed) for seed in (1, 1, 2))
    assert one.sha256 == again.sha256 != two.sha256
    assert np.array_equal(one.test.prepare().images, two.test.prepare().images)
    assert not np.array_equal(one.validation.prepare().images, two.validation.prepare().images)


def test_the_parts_of_digits_share_no_image() -> None:
    digits = load_digits(validation_images=180, seed=3)
    assert not rows(digits.train) & rows(digits.test)
    assert not rows(digits.validation) & (rows(digits.test) | rows(digits.train))


def test_validation_images_come_out_of_the_training_images(tmp_path: Path, no_data: Path) -> None:
    tiny = load(write_idx_dataset(tmp_path), data_dir=tmp_path)
    assert [len(part) for part in (tiny.train, tiny.validation, tiny.test)] == [30, 10, 10]
    assert not rows(tiny.train) & rows(tiny.validation)
    assert tiny.labels == tuple("0123456789")
    assert (tiny.preprocessing.height, tiny.preprocessing.width) == (28, 28)


def test_data_dir_goes_before_the_environment_and_the_environment_before_the_cache(
    tmp_path: Path, no_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_idx_dataset(tmp_path / "origin")
    for folder in ("named", "environment"):
        write_idx_dataset(tmp_path / folder / "tiny")
    assert load(source).source == str(cache_folder("tiny")) == str(no_data / "datasets/inferry/tiny")  # downloaded
    monkeypatch.setenv("INFERRY_DATA", str(tmp_path / "environment"))
    assert load(source).source == str(tmp_path / "environment" / "tiny")
    assert load(source, data_dir=tmp_path / "named").source == str(tmp_path / "named" / "tiny")


def test_the_folder_of_the_files_itself_can_be_named(
    tmp_path: Path, no_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_idx_dataset(tmp_path / "anything")
    assert load(source, data_dir=tmp_path / "anything").source == str(tmp_path / "anything")
    monkeypatch.setenv("INFERRY_DATA", str(tmp_path / "anything"))
    assert load(source).source == str(tmp_path / "anything")


def test_an_environment_that_holds_other_data_sets_is_passed_over(
    tmp_path: Path, no_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERRY_DATA", str(tmp_path))
    assert load(write_idx_dataset(tmp_path / "origin")).source == str(cache_folder("tiny"))


def test_a_data_dir_without_the_files_is_refused_with_the_order_of_search(tmp_path: Path, no_data: Path) -> None:
    source = write_idx_dataset(tmp_path / "origin")
    (tmp_path / "empty").mkdir()
    for folder, reason in ((tmp_path / "empty", "holds none of its files"), (tmp_path / "nowhere", "is not a folder")):
        with pytest.raises(DatasetError) as caught:
            load(source, data_dir=folder)
        assert f"--data-dir {folder} {reason}" in str(caught.value)
        assert "$INFERRY_DATA, the cache" in str(caught.value)
        assert "a download are tried, in this order" in str(caught.value)


def test_a_download_is_kept_and_not_repeated(tmp_path: Path, no_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_idx_dataset(tmp_path / "origin")
    load(source)
    assert "downloading tiny" in capsys.readouterr().out
    elsewhere = replace(source, files=replace(source.files, mirrors=((tmp_path / "gone").as_uri(),)))
    assert load(elsewhere).source == str(cache_folder("tiny"))
    assert "downloading" not in capsys.readouterr().out


def test_a_damaged_file_in_the_cache_is_downloaded_again(tmp_path: Path, no_data: Path) -> None:
    source = write_idx_dataset(tmp_path / "origin")
    load(source)
    (cache_folder("tiny") / mnist.TEST_IMAGES).write_bytes(b"half a file")
    assert len(load(source).test) == 10


def test_a_mirror_with_a_wrong_file_is_followed_by_the_next(tmp_path: Path, no_data: Path) -> None:
    source = write_idx_dataset(tmp_path / "origin")
    write_idx_dataset(tmp_path / "other", seed=9)
    mirrors = ((tmp_path / "other").as_uri(), *source.files.mirrors)
    assert len(load(replace(source, files=replace(source.files, mirrors=mirrors))).test) == 10


def test_without_any_mirror_the_message_says_where_was_looked(
    tmp_path: Path, no_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_idx_dataset(tmp_path / "origin")
    monkeypatch.setenv("INFERRY_DATA", str(tmp_path / "mine"))
    gone = (tmp_path / "gone").as_uri()
    with pytest.raises(DatasetError) as caught:
        load(replace(source, files=replace(source.files, mirrors=(gone,))))
    looked = f"Looked in --data-dir (not set), $INFERRY_DATA ({tmp_path / 'mine'}), the cache ({cache_folder('tiny')})"
    assert looked in str(caught.value)
    assert gone in str(caught.value)
    assert "name it with --data-dir or $INFERRY_DATA" in str(caught.value)
    assert not list(cache_folder("tiny").iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>Too many requests</html>", "looks like a web page saved in its place"),
        (encode_idx(np.ones(10, np.uint8)), "expected MD5 [0-9a-f]{32}, [0-9a-f]{32} came; download it again"),
    ],
)
def test_a_wrong_checksum_names_file_and_both_sums(tmp_path: Path, no_data: Path, content: bytes, message: str) -> None:
    source = write_idx_dataset(tmp_path)
    (tmp_path / mnist.TEST_LABELS).write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        load(source, data_dir=tmp_path)
    assert str(tmp_path / mnist.TEST_LABELS) in str(caught.value)


def test_a_missing_file_among_the_four_is_named(tmp_path: Path, no_data: Path) -> None:
    source = write_idx_dataset(tmp_path)
    (tmp_path / mnist.TRAIN_LABELS).unlink()
    with pytest.raises(DatasetError, match=rf"{mnist.TRAIN_LABELS} is missing; .* only some of the files of tiny"):
        load(source, data_dir=tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(9, np.uint8), "holds 9 labels; expected 10, one for each image"),
        (np.full(10, 10, np.uint8), "holds the label 10; expected 0 to 9"),
    ],
)
def test_labels_that_do_not_fit_the_images_are_refused(
    tmp_path: Path, no_data: Path, labels: UInt8Array, message: str
) -> None:
    write_idx_dataset(tmp_path)
    (tmp_path / mnist.TEST_LABELS).write_bytes(encode_idx(labels))
    with pytest.raises(DatasetError, match=message):
        load(describe_idx_dataset(tmp_path), data_dir=tmp_path)


def test_more_validation_images_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot hold out 1437 of 1437 images"):
        load_digits(validation_images=1437, seed=1)


def test_an_unknown_data_set_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="expected one of digits, mnist, fashion-mnist"):
        load_dataset(RunConfig("minst"), data_dir=None)
    assert [name for name in NAMES if not takes_files(name)] == ["digits"]


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_real_files_load_with_their_checksums(name: str) -> None:
    folder = Path(os.environ.get("INFERRY_DATA") or "nowhere")
    if not (folder / name).is_dir():
        pytest.skip(f"set INFERRY_DATA to a folder that holds {name}/ with its four *-ubyte.gz files")
    dataset = load_dataset(RunConfig(name), data_dir=folder)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [50_000, 10_000, 10_000]
    assert np.bincount(dataset.test.labels).sum() == 10_000
    assert len(set(dataset.labels)) == 10
