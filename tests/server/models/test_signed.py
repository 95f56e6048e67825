"""A server with a model key serves what was signed with it, as it was signed, and nothing else."""

import errno
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from inferry_proto import signing
from inferry_proto.version_labels import write_version_labels
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import ModelLoadError, StartError
from inferry_server.models.loading import LoadOptions
from inferry_server.models.manager import ModelManager
from inferry_server.models.passing_faults import may_pass
from inferry_server.models.registry import IndexEntry, ModelRegistry, State
from inferry_server.models.repository import scan_repository
from inferry_server.models.signed import checked_model_key
from inferry_server.runtime.providers import CPU
from inferry_server.telemetry.metrics import ServerMetrics
from testkit import onnx_models
from testkit.signing_keys import KeyPair, make_keys

POLICY = BatchingPolicy(max_batch_size=4, max_request_rows=8, max_queue_size=64, max_queue_bytes=1 << 20)
MODEL = "brightness"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return make_keys(tmp_path_factory.mktemp("keys"), "ours")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return make_keys(tmp_path_factory.mktemp("keys"), "theirs")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, keys: KeyPair) -> Path:
    """Two signed versions with a signed label on the older one."""
    root = tmp_path_factory.mktemp("published")
    for version in (1, 2):
        signing.sign_version(onnx_models.save_brightness(root, name=MODEL, version=version), keys.private)
    (root / MODEL / "labels.txt").write_text("dark\nbright\n")
    write_version_labels(root / MODEL, {"stable": 1})
    signing.sign_settings(root / MODEL, keys.private)
    return root


@pytest.fixture
def repository(published: Path, tmp_path: Path) -> Path:
    shutil.copytree(published, tmp_path / "models", symlinks=True)
    return tmp_path / "models"


class Served:
    def __init__(self, root: Path, key: Path | None) -> None:
        self.registry = ModelRegistry(lambda: None)
        options = LoadOptions((CPU,), 1, 1, POLICY, ServerMetrics(), model_key=key)
        self.manager = ModelManager(root, self.registry, options, drain_timeout_s=5)
        self.manager.load_all(scan_repository(root), lambda: False)

    @property
    def states(self) -> dict[str, IndexEntry]:
        return {entry.version_text: entry for entry in self.registry.index() if entry.model == MODEL}

    def reason(self, version: int = 2) -> str:
        assert self.states[str(version)].state is State.UNAVAILABLE
        return self.states[str(version)].reason


def test_what_is_signed_is_served_under_its_labels(repository: Path, keys: KeyPair) -> None:
    served = Served(repository, keys.public)
    assert {text: entry.state for text, entry in served.states.items()} == {"1": State.READY, "2": State.READY}
    assert served.registry.find(MODEL, "stable").version == "1"


def change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link_out(version: Path, keys: KeyPair) -> None:
    outside = version.parents[2] / "outside.onnx"
    (version / "model.onnx").rename(outside)
    (version / "model.onnx").symlink_to(outside)


FAULTS: dict[str, tuple[Callable[[Path, KeyPair], object], str]] = {
    "changed byte": (lambda version, _: change(version / "model.onnx"), "Hash mismatch for 'model.onnx'"),
    "changed manifest": (lambda version, _: change(version / "golden.npz"), "Hash mismatch for 'golden.npz'"),
    "added file": (lambda version, _: (version / "labels.txt").write_text("bright\ndark\n"), "Extra files.*labels.txt"),
    "hidden file": (lambda version, _: (version / ".gitignore").write_text("*"), "Extra files.*gitignore"),
    "removed file": (lambda version, _: (version / "golden.npz").unlink(), "Missing files.*golden.npz"),
    "no signature": (lambda version, _: (version / "model.sig").unlink(), "is not signed: it has no model.sig"),
    "other key": (lambda version, theirs: signing.sign_version(version, theirs.private), "does not match the provided"),
    "link out": (link_out, "symlink"),
    "signature of another version": (
        lambda version, _: shutil.copy(version.parent / "1" / "model.sig", version),
        "no signature of these files|was made for '1'",
    ),
    "another version whole": (
        lambda version, _: shutil.copytree(version.parent / "1", version, dirs_exist_ok=True),
        "was made for '1'; expected one for '2'",
    ),
    "no bundle": (lambda version, _: (version / "model.sig").write_text("{}"), "no signature of these files"),
    "huge numbers": (lambda version, _: (version / "model.sig").write_text("[" * 100_000), "no signature of these"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_version_that_is_not_as_it_was_signed_is_named_and_not_served(
    name: str, repository: Path, keys: KeyPair, other: KeyPair
) -> None:
    plant, reason = FAULTS[name]
    plant(repository / MODEL / "2", other)
    served = Served(repository, keys.public)
    assert re.search(reason, served.reason()), served.reason()
    assert str(repository) in served.reason()
    assert served.states["1"].state is State.READY


def test_a_version_of_another_model_is_not_served(repository: Path, keys: KeyPair) -> None:
    """Signed, and whole, and not this model's."""
    version = onnx_models.save_brightness(repository, name="other", version=3)
    signing.sign_version(version, keys.private)
    shutil.copytree(version, repository / MODEL / "3")
    assert "is a version of 'other'; expected one of 'brightness'" in Served(repository, keys.public).reason(3)


@pytest.mark.parametrize("forged", [False, True])
def test_a_signature_that_names_no_key_is_verified_and_nothing_is_printed(
    repository: Path, keys: KeyPair, other: KeyPair, capfd: pytest.CaptureFixture[str], *, forged: bool
) -> None:
    """Standard output has the line with the server's addresses, which others read."""
    version = repository / MODEL / "2"
    if forged:
        signing.sign_version(version, other.private)
    bundle = json.loads((version / "model.sig").read_text())
    bundle["verificationMaterial"]["publicKey"].clear()
    (version / "model.sig").write_text(json.dumps(bundle))
    assert Served(repository, keys.public).states["2"].state is (State.UNAVAILABLE if forged else State.READY)
    assert capfd.readouterr().out == ""


LABEL_FAULTS: dict[str, tuple[Callable[[Path, KeyPair], object], str]] = {
    "label re-pointed": (
        lambda model, _: write_version_labels(model, {"stable": 2}),
        "Hash mismatch for 'version_labels.json'",
    ),
    "classes exchanged": (lambda model, _: (model / "labels.txt").write_text("bright\ndark\n"), "Hash mismatch"),
    "configuration added": (lambda model, _: (model / "config.pbtxt").write_text("max_batch_size: 0"), "Extra files"),
    "unsigned": (lambda model, _: (model / "settings.sig").unlink(), "is not signed: it has no settings.sig"),
    "signed by others": (lambda model, theirs: signing.sign_settings(model, theirs.private), "does not match"),
}


@pytest.mark.parametrize("name", LABEL_FAULTS)
def test_labels_and_settings_that_are_not_as_they_were_signed_are_not_followed(
    name: str, repository: Path, keys: KeyPair, other: KeyPair
) -> None:
    plant, reason = LABEL_FAULTS[name]
    plant(repository / MODEL, other)
    served = Served(repository, keys.public)
    assert re.search(reason, served.reason()), served.reason()
    assert not served.registry.model(MODEL).labels  # type: ignore[union-attr]


def test_labels_in_force_stay_while_new_ones_are_unsigned(repository: Path, keys: KeyPair) -> None:
    served = Served(repository, keys.public)
    write_version_labels(repository / MODEL, {"stable": 2})
    served.manager.poll_once()
    assert served.registry.find(MODEL, "stable").version == "1"
    signing.sign_settings(repository / MODEL, keys.private)
    served.manager.poll_once()
    assert served.registry.find(MODEL, "stable").version == "2"


def test_signed_labels_that_cannot_be_read_are_logged_once_by_their_own_path(
    repository: Path, keys: KeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    file = repository / MODEL / "version_labels.json"
    file.write_text("<html>")
    signing.sign_settings(repository / MODEL, keys.private)
    served = Served(repository, keys.public)
    for _ in range(20):
        served.manager.poll_once()
    (told,) = (record.getMessage() for record in caplog.records if "labels not changed" in record.getMessage())
    assert f"{file} holds no version labels" in told  # not the private copy, which is another one each time


def test_labels_changed_without_signing_are_logged_at_every_change(
    repository: Path, keys: KeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    served = Served(repository, keys.public)
    for count, version in enumerate((2, 1, 2), start=1):
        write_version_labels(repository / MODEL, {"stable": version, "unsigned": 1})
        for _ in range(3):
            served.manager.poll_once()
        told = [record for record in caplog.records if "labels not changed" in record.getMessage()]
        assert len(told) == count


def test_without_a_key_signatures_are_files_like_others(repository: Path) -> None:
    (repository / MODEL / "2" / "model.sig").write_text("{}")
    assert Served(repository, None).states["2"].state is State.READY


def test_a_changed_original_changes_nothing_of_what_was_verified(repository: Path, keys: KeyPair) -> None:
    with signing.verified_settings(repository / MODEL, keys.public) as settings:
        write_version_labels(repository / MODEL, {"stable": 2})
        assert json.loads((settings / "version_labels.json").read_text())["labels"] == {"stable": "1"}
    assert not settings.exists()


@pytest.mark.parametrize("text", ["", "no key"])
def test_a_model_key_that_is_none_stops_the_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "key.pem").write_text(text)
    with pytest.raises(StartError, match=r"setting model_key: .*key.pem cannot verify"):
        checked_model_key(tmp_path / "key.pem")
    with pytest.raises(StartError, match="setting model_key"):
        checked_model_key(tmp_path / "missing.pem")
    assert checked_model_key(None) is None


def test_a_version_for_which_there_was_no_room_is_served_once_there_is(
    repository: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 20, 1 << 20, 0))
        served = Served(repository, keys.public)
        assert "has room for 0" in served.reason()
        served.manager.poll_once()
        assert "has room for 0" in served.reason()
    served.manager.poll_once()
    assert [entry.state for entry in served.states.values()] == [State.READY, State.READY]


def test_a_version_that_is_wrong_is_not_tried_again(
    repository: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / MODEL / "2" / "more").write_text("more")
    served = Served(repository, keys.public)
    reason = served.reason()
    monkeypatch.setattr("inferry_server.models.manager.load_version", None)
    served.manager.poll_once()
    assert served.reason() == reason


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.EMFILE, "too many"), True),
        (shutil.Error([("a", "b", "full")]), True),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (ValueError("wrong"), False),
        (None, False),
    ],
)
def test_faults_of_the_machine_are_told_from_those_of_files(error: Exception | None, *, expected: bool) -> None:
    raised = ModelLoadError("a version")
    middle = signing.SignatureError("copied")
    middle.__cause__, raised.__cause__ = error, middle
    assert may_pass(raised) is expected
