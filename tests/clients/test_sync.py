"""A server beside the copy of a store sees whole versions and labels that it can follow, whatever the store holds."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferry_client.cli import main
from inferry_client.sync.command import keep_looking
from inferry_client.sync.errors import SyncError
from inferry_client.sync.layout import StoredObject, read_layout
from inferry_client.sync.mirror import Mirror
from inferry_client.sync.store import ObjectStore
from inferry_proto.manifest import describe_file, write_manifest
from inferry_proto.manifest_pb2 import ModelManifest
from inferry_server.models.repository import scan_repository
from testkit import onnx_models
from testkit.object_store import bucket, tag


class Scripted:
    """A store of bytes; `between` is called before each listing but the first."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.contents = objects
        self.between: Callable[[], object] = lambda: None
        self.fault: str | None = None
        self.reads: list[str] = []
        self._listed = 0

    def objects(self) -> list[StoredObject]:
        if self.fault:
            raise SyncError(self.fault)
        if self._listed:
            self.between()
        self._listed += 1
        return [StoredObject(path, len(data), tag(data)) for path, data in self.contents.items()]

    def read(self, one: StoredObject) -> Iterator[bytes]:
        self.reads.append(one.path)
        data = self.contents[one.path]
        yield from (data[start : start + 3] for start in range(0, len(data), 3))


def version(name: str, data: bytes = b"model") -> dict[str, bytes]:
    return {f"{name}/model.onnx": data, f"{name}/labels.txt": b"a\nb\n"}


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*") if path.is_file() and path.name != ".sync-lock"
    }  # fmt: skip


def look(store: Scripted, folder: Path, *, delete: bool = False) -> Mirror:
    mirror = Mirror(store, folder, delete=delete)
    with mirror.owned():
        mirror.look()
    return mirror


def with_manifest(tmp_path: Path, name: str) -> dict[str, bytes]:
    """A version whose manifest names its files."""
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"whole")
    write_manifest(folder, ModelManifest(format_version=1, files=[describe_file(folder / "model.onnx")]))
    return {f"{name}/{path.name}": path.read_bytes() for path in folder.iterdir()}


def test_a_copy_is_what_the_store_holds(tmp_path: Path) -> None:
    store = Scripted({**version("m/1"), **version("m/2"), "m/config.pbtxt": b"x", "m/2/model.onnx/weights": b"w"})
    store.contents.pop("m/2/model.onnx")
    mirror = look(store, tmp_path / "copy")
    assert files(tmp_path / "copy") == store.contents
    assert mirror.changes == ["m/1 copied", "m/2 copied", "m/config.pbtxt copied"]
    assert look(store, tmp_path / "copy").changes == []


def test_a_second_look_reads_nothing_again(tmp_path: Path) -> None:
    store = Scripted({**version("m/1"), "m/version_labels.json": b'{"labels": {"stable": 1}}'})
    mirror = Mirror(store, tmp_path, delete=False)
    with mirror.owned():
        mirror.look()
        first = list(store.reads)
        mirror.look()
    assert store.reads == first
    assert (mirror.changes, mirror.notes) == ([], [])


@pytest.mark.parametrize("broken", ["missing", "other", "short"])
def test_a_version_that_is_not_what_its_manifest_says_is_not_taken(broken: str, tmp_path: Path) -> None:
    objects = with_manifest(tmp_path, "m/1")
    whole = objects.pop("m/1/model.onnx")
    if broken != "missing":
        objects["m/1/model.onnx"] = b"other" if broken == "other" else b"who"
    store = Scripted(objects)
    mirror = look(store, tmp_path / "copy")
    assert "m/1 is not taken" in mirror.notes[0]
    assert files(tmp_path / "copy") == {}
    store.contents["m/1/model.onnx"] = whole
    assert look(store, tmp_path / "copy").changes == ["m/1 copied"]


def test_a_version_without_manifest_that_is_still_written_is_not_taken(tmp_path: Path) -> None:
    store = Scripted(version("m/1"))
    store.between = lambda: store.contents.update({"m/1/model.onnx.data": b"late"})
    assert look(store, tmp_path / "copy").notes == ["m/1 is not taken: it changed while it was read"]
    assert files(tmp_path / "copy") == {}


def test_an_object_that_is_shorter_than_listed_is_not_taken(tmp_path: Path) -> None:
    class Cut(Scripted):
        def read(self, one: StoredObject) -> Iterator[bytes]:
            yield self.contents[one.path][:2]

    assert "changed while it was read" in look(Cut(version("m/1")), tmp_path / "copy").notes[0]


def test_a_published_version_that_changes_is_told_and_left_as_it_was(tmp_path: Path) -> None:
    store = Scripted(version("m/1"))
    mirror = Mirror(store, tmp_path, delete=True)
    with mirror.owned():
        mirror.look()
        store.contents["m/1/model.onnx"] = b"MODEL"  # the same size
        mirror.look()
    assert "m/1 is another in the store (model.onnx)" in mirror.notes[0]
    assert (tmp_path / "m/1/model.onnx").read_bytes() == b"model"
    store.contents["m/1/extra"] = b"x"
    assert "m/1 is another in the store (extra)" in look(store, tmp_path).notes[0]


def test_labels_wait_for_the_versions_that_they_name(tmp_path: Path) -> None:
    store = Scripted({**version("m/1"), "m/version_labels.json": b'{"labels": {"stable": 1}}'})
    look(store, tmp_path)
    store.contents["m/version_labels.json"] = (
        b'{"labels": {"stable": 1, "canary": 2}, "traffic": {"stable": 9, "canary": 1}}'
    )
    mirror = look(store, tmp_path)
    assert mirror.notes == ["m/version_labels.json is not taken: canary names version 2, which is not here"]
    assert b"canary" not in (tmp_path / "m/version_labels.json").read_bytes()
    store.contents |= version("m/2")
    assert look(store, tmp_path).changes == ["m/2 copied", "m/version_labels.json copied"]
    store.contents["m/version_labels.json"] = b"{not JSON"
    assert "is not taken" in look(store, tmp_path).notes[0]
    assert b"canary" in (tmp_path / "m/version_labels.json").read_bytes()


def test_what_is_gone_is_removed_when_asked_and_never_all_of_it(tmp_path: Path) -> None:
    store = Scripted({**version("m/1"), **version("m/2"), **version("n/1")})
    look(store, tmp_path)
    for path in [path for path in store.contents if path.startswith(("m/1", "n/"))]:
        del store.contents[path]
    assert look(store, tmp_path).changes == []
    assert sorted(look(store, tmp_path, delete=True).changes) == ["m/1 removed", "n/1 removed"]
    assert files(tmp_path) == store.contents
    store.contents.clear()
    assert look(store, tmp_path, delete=True).notes == ["the store holds no version, and the copy stays as it is"]
    assert (tmp_path / "m/2/model.onnx").is_file()


PARTS = st.sampled_from(["a", "m", "1", "é-", "", ".", "..", ".a", "a\\b", "a\0"]) | st.text("am1./\\\0é-", max_size=4)


@given(st.lists(st.lists(PARTS, min_size=2, max_size=4).map("/".join)))
@example(["m/../a"])
@example(["m/1/../../a"])
def test_no_object_is_written_outside_its_model(paths: list[str]) -> None:
    for name, model in read_layout(StoredObject(path, 0, "") for path in paths).items():
        inside = [f"{version}/{path}" for version, objects in model.versions.items() for path in objects]
        for path in (*inside, *model.files):
            resolved = os.path.normpath(f"/copy/{name}/{path}")
            assert resolved == f"/copy/{name}/{path}"
            assert not any(part.startswith(".") for part in (name, *path.split("/")))


def test_what_is_half_done_is_removed_and_nobody_else_may_copy(tmp_path: Path) -> None:
    left = tmp_path / "m" / ".syncing-dead"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")
    mirror = Mirror(Scripted(version("m/1")), tmp_path, delete=False)
    with mirror.owned():
        assert not left.exists()
        with (
            pytest.raises(SyncError, match="another process copies"),
            Mirror(Scripted({}), tmp_path, delete=False).owned(),
        ):
            pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SyncError, match="file"), Mirror(Scripted({}), tmp_path / "file", delete=False).owned():
        pass
    mirror = Mirror(Scripted(version("m/1")), tmp_path / "copy", delete=False)
    with mirror.owned():
        (tmp_path / "copy" / "m").write_bytes(b"")
        with pytest.raises(SyncError, match="copy/m"):
            mirror.look()


def test_a_store_that_is_away_is_asked_again_and_its_complaint_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Scripted(version("m/1"))
    mirror = Mirror(store, tmp_path, delete=True)
    faults = iter(["away", "away", None, "gone"])

    def wait() -> bool:
        store.fault = next(faults, "end")
        return store.fault == "end"

    with mirror.owned():
        keep_looking(mirror, wait)
    out, err = capsys.readouterr()
    assert out == "m/1 copied\n"
    assert err == "inferry: error: away\ninferry: error: gone\n"
    assert (tmp_path / "m/1/model.onnx").is_file()


def test_a_server_finds_the_copys_versions_and_nothing_of_the_copying(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path / "source")
    source = {
        str(p.relative_to(tmp_path / "source")): p.read_bytes() for p in (tmp_path / "source").rglob("*") if p.is_file()
    }
    mirror = Mirror(Scripted(source), tmp_path / "copy", delete=True)
    with mirror.owned():
        mirror.look()
        (tmp_path / "copy" / "doubler" / ".syncing-now" / "model.onnx").mkdir(parents=True)
        (model,) = scan_repository(tmp_path / "copy")
        assert (model.name, [one.version for one in model.versions], model.problem) == ("doubler", [1], "")


def test_it_reads_buckets_in_pages_and_says_which_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = np.random.default_rng(0).bytes(5 << 20)
    objects = {
        f"models/{path}": data for path in ("m/1/model.onnx", "m/1/labels.txt", "m/2/model.onnx", "m/3/é ü.onnx")
    }
    with bucket({**objects, "other/m/9/model.onnx": b"x"}) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert main(["sync", "s3://bucket/models", str(tmp_path)]) == 0
        assert {f"models/{path}": found for path, found in files(tmp_path).items()} == objects
        assert main(["sync", "s3://bucket/nothing", str(tmp_path / "empty")]) == 1
        assert "no version is in the copy" in capsys.readouterr().err
    assert main(["sync", "ftp://bucket", str(tmp_path)]) == 1
    assert main(["sync", "file:///nowhere/at/all", str(tmp_path)]) == 1
    assert "cannot be" in capsys.readouterr().err


def test_an_object_that_is_gone_is_an_error_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(SyncError, match="cannot be read"):
        list(ObjectStore(tmp_path.as_uri()).read(StoredObject("m/1/model.onnx", 1, "")))


def test_sigterm_ends_the_loop(tmp_path: Path) -> None:
    (tmp_path / "store/m/1").mkdir(parents=True)
    (tmp_path / "store/m/1/model.onnx").write_bytes(b"x")
    command = [sys.executable, "-m", "inferry_client", "sync", (tmp_path / "store").as_uri(), str(tmp_path / "copy")]
    with subprocess.Popen([*command, "--every-s", "3600"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "m/1 copied\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
