import errno
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inferry_trainer.errors import PublishError
from inferry_trainer.publishing.publish import check_model_name, publish_version


def write_model(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"weights")


def test_versions_count_from_one_and_keep_what_is_there(tmp_path: Path) -> None:
    repository = tmp_path / "new" / "models"
    first = publish_version(repository, "digits", write_model)
    second = publish_version(repository, "digits", write_model)
    assert (first, second) == (repository / "digits" / "1", repository / "digits" / "2")
    assert sorted(path.name for path in (repository / "digits").iterdir()) == ["1", "2"]


def test_the_next_version_follows_the_largest_number_there(tmp_path: Path) -> None:
    for name in ("2", "10", "config.pbtxt", "old", ".publishing-left-over"):
        (tmp_path / "digits" / name).mkdir(parents=True)
    assert publish_version(tmp_path, "digits", write_model).name == "11"


def test_a_version_is_readable_by_whoever_may_read_the_repository(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        version = publish_version(tmp_path, "digits", write_model)
    finally:
        os.umask(before)
    assert stat.S_IMODE(version.stat().st_mode) == 0o755
    assert stat.S_IMODE((version / "model.onnx").stat().st_mode) == 0o644


def test_nothing_but_a_hidden_folder_is_seen_while_a_version_is_written(tmp_path: Path) -> None:
    seen: list[str] = []

    def write(folder: Path) -> None:
        write_model(folder)
        seen.extend(path.name for path in (tmp_path / "digits").iterdir())

    publish_version(tmp_path, "digits", write)
    assert len(seen) == 1
    assert seen[0].startswith(".publishing-")


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    def fill_the_disk(folder: Path) -> None:
        write_model(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "golden.npz"))

    with pytest.raises(PublishError, match=r"nothing was published: .*golden\.npz: No space left on device"):
        publish_version(tmp_path / "models", "digits", fill_the_disk)
    assert not list(tmp_path.iterdir())


def test_a_failure_keeps_the_versions_that_are_there(tmp_path: Path) -> None:
    publish_version(tmp_path, "digits", write_model)

    def interrupt(_folder: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish_version(tmp_path, "digits", interrupt)
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1"]


def test_a_failing_sync_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(PublishError, match="nothing was published"):
        publish_version(tmp_path / "models", "digits", write_model)
    assert not list(tmp_path.iterdir())


def test_publishers_at_the_same_moment_get_versions_of_their_own(tmp_path: Path) -> None:
    publishers = 8
    together = threading.Barrier(publishers)

    def publish(index: int) -> Path:
        def write(folder: Path) -> None:
            (folder / "model.onnx").write_text(str(index))
            together.wait(timeout=30)

        return publish_version(tmp_path, "digits", write)

    with ThreadPoolExecutor(publishers) as pool:
        versions = list(pool.map(publish, range(publishers)))
    assert sorted(int(version.name) for version in versions) == list(range(1, publishers + 1))
    assert [int((version / "model.onnx").read_text()) for version in versions] == list(range(publishers))
    assert len(list((tmp_path / "digits").iterdir())) == publishers


def test_a_repository_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    with pytest.raises(PublishError, match=r"nothing was published: .*models"):
        publish_version(tmp_path / "models", "digits", write_model)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "-x", "mnist\n", "ä", "x" * 129])
def test_a_name_that_cannot_be_a_folder_is_refused(name: str) -> None:
    with pytest.raises(PublishError, match="cannot be a model's name; expected"):
        check_model_name(name)


@pytest.mark.parametrize("name", ["mnist", "mnist-int8", "2", "a.b_c"])
def test_usual_names_are_accepted(name: str) -> None:
    check_model_name(name)
