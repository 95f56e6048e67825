"""When files that changed are read again, and what stays in effect if they cannot be used."""

import os
from pathlib import Path

import pytest

from inferry_server.security.watching import Contents, WatchedFiles, read_files


class Applied(list[bytes]):
    """What was applied; `told` is what was counted."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def apply(self, contents: Contents) -> None:
        joined = b"+".join(contents.values())
        if b"wrong" in joined:
            raise ValueError("it is wrong")
        self.append(joined)


@pytest.fixture
def applied() -> Applied:
    return Applied()


def watch(applied: Applied, *paths: Path) -> WatchedFiles:
    return WatchedFiles("files", paths, read_files(paths), applied.apply, lambda _, told: applied.told.append(told))


def test_files_that_stay_the_same_are_not_applied_again(tmp_path: Path, applied: Applied) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    watched = watch(applied, path)
    for _ in range(3):
        path.touch()
        watched.look()
    assert not applied
    assert not applied.told


def test_what_is_still_being_written_is_waited_for(tmp_path: Path, applied: Applied) -> None:
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    certificate.write_bytes(b"old")
    key.write_bytes(b"old")
    watched = watch(applied, certificate, key)
    for text in (b"", b"ne", b"new"):
        certificate.write_bytes(text)
        watched.look()
    key.write_bytes(b"new")
    watched.look()
    assert applied == []
    watched.look()
    watched.look()
    assert (applied, applied.told) == ([b"new+new"], ["reloaded"])


def test_a_link_that_is_exchanged_is_followed(tmp_path: Path, applied: Applied) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_bytes(name.encode())
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "token").symlink_to("..data/token")
    watched = watch(applied, tmp_path / "token")
    (tmp_path / "..new").symlink_to("two")
    os.replace(tmp_path / "..new", tmp_path / "..data")  # noqa: PTH105 - as Kubernetes does it
    watched.look()
    watched.look()
    assert applied == [b"two"]


def test_what_cannot_be_used_is_told_once_and_the_next_contents_are_tried(tmp_path: Path, applied: Applied) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    watched = watch(applied, path)
    path.write_bytes(b"wrong")
    for _ in range(4):
        watched.look()
    assert (applied, applied.told) == ([], ["failed"])
    path.write_bytes(b"right")
    for _ in range(4):
        watched.look()
    assert (applied, applied.told) == ([b"right"], ["failed", "reloaded"])


def test_what_could_not_be_used_for_a_while_is_used_then(tmp_path: Path) -> None:
    path, told, tried = tmp_path / "file", list[str](), list[bytes]()
    path.write_bytes(b"old")

    def apply(contents: Contents) -> None:
        tried.append(contents[path])
        if len(tried) < 3:
            raise OSError("Too many open files")

    watched = WatchedFiles("files", [path], read_files([path]), apply, lambda _, what: told.append(what))
    path.write_bytes(b"new")
    for _ in range(8):
        watched.look()
    assert (tried, told) == ([b"new"] * 3, ["failed", "reloaded"])


def test_a_file_that_is_gone_is_told_once_and_found_again(tmp_path: Path, applied: Applied) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    watched = watch(applied, path)
    path.unlink()
    for _ in range(3):
        watched.look()
    assert applied.told == ["failed"]
    path.write_bytes(b"new")
    watched.look()
    watched.look()
    assert applied == [b"new"]
