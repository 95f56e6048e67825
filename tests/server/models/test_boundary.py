"""One model that nobody foresaw: the others are served, and index, log and metrics say why it is not."""

import logging
import os
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from inferry_proto.manifest import describe_file, read_manifest, write_manifest
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import ModelLoadError, ModelNotFoundError, StartError
from inferry_server.models import loading, opening, verified
from inferry_server.models.load_queue import Done
from inferry_server.models.loading import LoadOptions, load_version
from inferry_server.models.manager import ModelManager
from inferry_server.models.registry import ModelRegistry, State
from inferry_server.models.repository import VersionFolder, scan_repository
from inferry_server.runtime.providers import CPU
from inferry_server.telemetry.metrics import ServerMetrics
from testkit import onnx_models
from testkit.waiting import SOON_S

POLICY = BatchingPolicy(max_batch_size=4, max_request_rows=8, max_queue_size=64, max_queue_bytes=1 << 20)


class Served:
    """A manager over a repository, without a server."""

    def __init__(self, root: Path) -> None:
        self.registry = ModelRegistry(lambda: None)
        self.metrics = ServerMetrics()
        self.options = LoadOptions((CPU,), 1, 1, POLICY, self.metrics)
        self.manager = ModelManager(root, self.registry, self.options, drain_timeout_s=5)
        self.root = root

    def load_all(self) -> None:
        self.manager.load_all(scan_repository(self.root), lambda: False)

    def states(self) -> dict[str, tuple[State, str]]:
        return {entry.model: (entry.state, entry.reason) for entry in self.registry.index()}

    def failures(self, model: str) -> float:
        return (
            self.metrics.registry.get_sample_value("inferry_model_loads_total", {"model": model, "outcome": "failed"})
            or 0.0
        )


@pytest.fixture
def served(tmp_path: Path) -> Served:
    for name in ("first", "last"):
        onnx_models.save_doubler(tmp_path, name=name)
    return Served(tmp_path)


def changed(change: Callable[[str, Done], object], model: str) -> Exception | None:
    """How a change of a model went that a client asks for."""
    outcomes: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    change(model, outcomes.put)
    return outcomes.get(timeout=SOON_S)


def tensor_without_utf8(folder: Path) -> None:
    onnx_models.save_half_echo(folder.parent, name="odd", element_type=1)
    path = folder / "1" / "model.onnx"
    path.write_bytes(path.read_bytes().replace(b"\x02in", b"\x02\xffn"))


def endless_file_name(folder: Path) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(f'default_model_filename: "{"n" * 300}"')


def label_file_with_a_null(folder: Path) -> None:
    onnx_models.save_brightness(folder.parent, name="odd", manifest=False)
    (folder / "config.pbtxt").write_text('output { name: "probabilities" label_filename: "l\\000x" }')


def config_that_is_a_folder(folder: Path) -> None:
    onnx_models.save_doubler(folder.parent, name="odd")
    (folder / "config.pbtxt").mkdir()


HOSTILE = [tensor_without_utf8, endless_file_name, label_file_with_a_null, config_that_is_a_folder]


@pytest.mark.parametrize("spoil", HOSTILE)
def test_whatever_a_model_holds_the_others_are_served(served: Served, spoil: Callable[[Path], None]) -> None:
    spoil(served.root / "odd")
    served.load_all()
    states = served.states()
    assert states["first"][0] is states["last"][0] is State.READY
    assert states["odd"][0] is State.UNAVAILABLE
    assert states["odd"][1].startswith(str(served.root / "odd"))
    assert served.failures("odd") == 1


def test_an_error_that_no_check_foresaw_is_one_models_failure_with_its_traceback_in_the_log(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session_opener = opening.session_opener

    def fail(folder: Any, *rest: Any, **options: Any) -> object:
        if str(folder) == "odd/1":
            raise KeyError("a key\nand more")
        return session_opener(folder, *rest, **options)

    monkeypatch.setattr(loading, "session_opener", fail)
    onnx_models.save_doubler(served.root, name="odd")
    with caplog.at_level(logging.ERROR):
        served.load_all()
    reason = served.states()["odd"][1]
    assert reason.startswith(f"{served.root / 'odd' / '1'}: loading failed with KeyError: 'a key")
    assert any(record.exc_info for record in caplog.records)
    assert served.states()["last"][0] is State.READY


def test_a_folder_that_cannot_be_followed_costs_only_its_model_and_recovers(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_models.save_doubler(served.root, name="odd")
    read = ModelManager._read_labels

    def fail(manager: ModelManager, folder: object, failures: list[str]) -> object:
        if getattr(folder, "name", "") == "odd":
            raise RuntimeError("nobody foresaw it")
        return read(manager, folder, failures)  # type: ignore[arg-type]

    monkeypatch.setattr(ModelManager, "_read_labels", fail)
    served.load_all()
    assert "nobody foresaw it" in served.states()["odd"][1]
    assert served.states()["last"][0] is State.READY
    monkeypatch.undo()
    served.manager.poll_once()
    assert [(e.version, e.state) for e in served.registry.index() if e.model == "odd"] == [(1, State.READY)]


def test_an_explicit_load_of_an_odd_model_is_answered_logged_and_counted(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    served.load_all()
    tensor_without_utf8(served.root / "odd")
    with caplog.at_level(logging.ERROR):
        outcome = changed(served.manager.load_model, "odd")
    assert isinstance(outcome, ModelLoadError)
    assert "model not loaded" in caplog.text
    assert served.failures("odd") == 1


def test_a_name_that_is_not_utf8_is_shown_with_escapes_and_asked_for_by_nobody(served: Served) -> None:
    Path(os.fsdecode(os.fsencode(served.root) + b"/mod\xe8le/1")).mkdir(parents=True)
    served.load_all()
    state, reason = served.states()["mod\\xe8le"]
    assert state is State.UNAVAILABLE
    assert "its name is not UTF-8" in reason
    for entry in served.registry.index():
        (entry.model + entry.reason).encode()


def test_reasons_stay_readable_whatever_names_a_file_has(served: Served) -> None:
    (served.root / "first" / "config.pbtxt").write_text("a" * 1_000_000)
    served.load_all()
    state, reason = served.states()["first"]
    assert state is State.UNAVAILABLE
    assert "config.pbtxt" in reason
    assert reason.endswith(" characters more)")
    assert len(reason) < 5000
    assert served.states()["last"][0] is State.READY


def test_reasons_are_utf8_where_the_repository_itself_has_another_name(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9p\xf4t"))
    onnx_models.save_doubler(root)
    (root / "odd" / "1").mkdir(parents=True)
    served = Served(root)
    served.load_all()
    assert served.states()["doubler"][0] is State.READY
    served.states()["odd"][1].encode()


def test_a_folder_that_may_not_be_searched_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("a/1", "b/1"):
        (tmp_path / path).mkdir(parents=True)
    look = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:  # root, whom permissions do not stop, runs this test too
        if path.parent.name == "a":
            raise PermissionError(13, "Permission denied")
        return look(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    private, open_to_all = scan_repository(tmp_path)
    assert private.problem == f"{tmp_path / 'a'} cannot be read: Permission denied"
    assert open_to_all.problem == ""


def test_a_repository_that_may_not_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **options: bool) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied")

    for method in ("stat", "iterdir"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, refuse)
            with pytest.raises(StartError, match="cannot be read: Permission denied"):
                scan_repository(tmp_path)


def test_links_that_lead_nowhere_or_round_in_a_circle_are_no_models(served: Served) -> None:
    (served.root / "loop").symlink_to("loop")
    (served.root / "gone").symlink_to("nowhere")
    (served.root / "first" / "2").symlink_to("2")
    (served.root / "last" / "2").write_text("a file")
    served.load_all()
    assert {name: state for name, (state, _) in served.states().items()} == {
        "first": State.READY, "last": State.READY
    }  # fmt: skip


def test_polling_unloads_the_last_model_too(served: Served) -> None:
    served.load_all()
    for name in ("first", "last"):
        (served.root / name).rename(served.root / f".{name}")
    served.manager.poll_once()
    assert served.states() == {}
    (served.root / ".first").rename(served.root / "first")
    served.manager.poll_once()
    assert served.registry.find("first", "").version == "1"


def test_polling_drops_a_model_that_never_had_a_version(served: Served) -> None:
    (served.root / "empty").mkdir()
    served.load_all()
    assert "holds no version" in served.states()["empty"][1]
    (served.root / "empty").rmdir()
    served.manager.poll_once()
    assert "empty" not in served.states()


def test_polling_sees_edited_label_files(tmp_path: Path) -> None:
    onnx_models.save_brightness(tmp_path, manifest=False)
    beside = tmp_path / "brightness" / "labels.txt"
    beside.write_text("night\nday\n")
    served = Served(tmp_path)
    served.load_all()
    assert served.registry.find("brightness", "").score_labels == ("night", "day")
    beside.write_text("off\non\n")
    served.manager.poll_once()
    assert served.registry.find("brightness", "").score_labels == ("off", "on")


def test_polling_sees_new_bytes_under_the_old_size_and_time(served: Served) -> None:
    served.load_all()
    before = served.registry.find("first", "")
    path = served.root / "first" / "1" / "model.onnx"
    status = path.stat()
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    served.manager.poll_once()
    assert served.registry.find("first", "") is not before


def test_unloading_what_is_not_there_is_not_remembered(served: Served) -> None:
    served.load_all()
    for number in range(3):
        assert changed(served.manager.unload_model, f"unknown {number}") is None
    assert changed(served.manager.unload_model, "first") is None
    assert served.manager._unloaded == {"first"}


def test_a_name_longer_than_any_files_is_not_in_the_repository(served: Served) -> None:
    assert isinstance(changed(served.manager.load_model, "n" * 300), ModelNotFoundError)


def test_golden_samples_outside_the_versions_folder_are_not_read(served: Served) -> None:
    folder = onnx_models.save_brightness(served.root)
    for name in ("../golden.npz", "/etc/golden.npz", ""):
        manifest = read_manifest(folder)
        assert manifest is not None
        manifest.golden_samples.file = name
        write_manifest(folder, manifest)
        with pytest.raises(ModelLoadError, match=f"golden_samples.file '{name}'; expected the name of a file beside"):
            load_version(VersionFolder("brightness", 1, folder), served.options)


def test_weights_beside_a_model_with_a_manifest_need_a_checksum(served: Served) -> None:
    folder = onnx_models.save_brightness(served.root)
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    manifest = read_manifest(folder)
    assert manifest is not None
    del manifest.files[:]
    manifest.files.append(describe_file(folder / "model.onnx"))
    write_manifest(folder, manifest)
    version = VersionFolder("brightness", 1, folder)
    with pytest.raises(ModelLoadError, match=r"has no checksum for w\.bin"):
        load_version(version, served.options)
    manifest.files.append(describe_file(folder / "w.bin"))
    write_manifest(folder, manifest)
    load_version(version, served.options).close(1)


def test_checksums_are_of_the_bytes_that_are_served(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are exchanged while a version is loaded change nothing of it."""
    folder = onnx_models.save_brightness(served.root)

    def exchange(path: Path) -> object:
        (folder / "model.onnx").write_bytes(b"exchanged")
        return read_manifest(path)

    monkeypatch.setattr(verified, "read_manifest", exchange)
    version = load_version(VersionFolder("brightness", 1, folder), served.options)
    assert version.signature.inputs[0].name == "images"
    version.close(1)
    with pytest.raises(ModelLoadError, match="was changed after it was published"):
        load_version(VersionFolder("brightness", 1, folder), served.options)


@pytest.mark.parametrize("name", ["manifest.json", "labels.txt", "golden.npz", "model.onnx", "../config.pbtxt"])
def test_a_fifo_in_the_place_of_any_file_fails_one_model_and_holds_up_nobody(served: Served, name: str) -> None:
    folder = onnx_models.save_brightness(served.root, manifest=name in ("manifest.json", "golden.npz"))
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    served.load_all()
    assert "FIFO" in served.states()["brightness"][1]
    assert served.states()["last"][0] is State.READY
