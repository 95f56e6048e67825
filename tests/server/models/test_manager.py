"""What is served follows the repository, and nothing that fails takes away what answers."""

import shutil
import threading
import weakref
from pathlib import Path

import pytest

from inferry_proto.version_labels import LABELS_FILE, write_version_labels
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import InvalidRequestError, ModelLoadError, ModelNotFoundError, ModelNotReadyError
from inferry_server.models import manager as manager_module
from inferry_server.models.loading import LoadOptions
from inferry_server.models.manager import ModelManager
from inferry_server.models.registry import ModelRegistry, State
from inferry_server.models.repository import scan_repository
from inferry_server.runtime.providers import CPU
from inferry_server.telemetry.metrics import ServerMetrics
from testkit import onnx_models

POLICY = BatchingPolicy(max_batch_size=4, max_request_rows=8, max_queue_size=64, max_queue_bytes=1 << 20)


class Served:
    """A manager over a repository, without a server."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.registry = ModelRegistry(lambda: None)
        self.metrics = ServerMetrics()
        options = LoadOptions((CPU,), 1, 1, POLICY, self.metrics)
        self.manager = ModelManager(root, self.registry, options, drain_timeout_s=5)

    def load_all(self) -> None:
        self.manager.load_all(scan_repository(self.root), lambda: False)

    def answers(self, model: str = "doubler", version: str = "") -> str:
        return self.registry.find(model, version).version

    def states(self, model: str = "doubler") -> dict[str, State]:
        return {e.version_text: e.state for e in self.registry.index() if e.model == model}


@pytest.fixture
def served(tmp_path: Path) -> Served:
    onnx_models.save_doubler(tmp_path, version=1)
    onnx_models.save_doubler(tmp_path, version=2)
    return Served(tmp_path)


def break_version(root: Path, version: int) -> None:
    folder = root / "doubler" / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(b"no model")


def test_the_newest_version_is_served(served: Served) -> None:
    served.load_all()
    assert served.answers() == "2"
    assert served.states() == {"1": State.UNAVAILABLE, "2": State.READY}
    with pytest.raises(ModelNotReadyError, match="by default the newest"):
        served.answers(version="1")


@pytest.mark.parametrize("config", ["", "version_policy { latest { num_versions: 2 } }", "version_policy { all {} }"])
def test_a_version_that_failed_takes_nothing_away_however_often_it_is_looked_at(served: Served, config: str) -> None:
    (served.root / "doubler" / "config.pbtxt").write_text(config)
    served.load_all()
    answered = served.registry.ready_versions("doubler")
    break_version(served.root, 3)
    for _ in range(3):
        served.manager.poll_once()
        assert served.registry.ready_versions("doubler") == answered
        assert served.states()["3"] is State.UNAVAILABLE
    onnx_models.save_doubler(served.root, version=3)
    served.manager.poll_once()
    assert served.answers() == "3"
    if not config:
        assert served.registry.ready_versions("doubler") == ["3"]


def test_a_new_version_takes_over_and_a_removed_one_goes(served: Served) -> None:
    served.load_all()
    onnx_models.save_doubler(served.root, version=3)
    served.manager.poll_once()
    assert served.answers() == "3"
    shutil.rmtree(served.root / "doubler" / "3")
    served.manager.poll_once()
    assert served.answers() == "2"
    assert set(served.states()) == {"1", "2"}
    shutil.rmtree(served.root / "doubler")
    onnx_models.save_scalar_adder(served.root)
    served.manager.poll_once()
    with pytest.raises(ModelNotFoundError):
        served.answers()
    assert served.answers("adder") == "1"


def test_a_new_version_that_fails_leaves_the_old_one_serving_and_says_why(served: Served) -> None:
    served.load_all()
    break_version(served.root, 3)
    served.manager.poll_once()
    assert served.answers() == "2"
    assert served.states()["3"] is State.UNAVAILABLE
    with pytest.raises(ModelNotReadyError, match="ONNX Runtime cannot load it"):
        served.answers(version="3")
    failures = served.metrics.loads.labels("doubler", "failed")
    count = failures.value
    served.manager.poll_once()
    assert failures.value == count  # not tried again until its files change
    onnx_models.save_doubler(served.root, version=3)
    served.manager.poll_once()
    assert served.answers() == "3"


def test_files_exchanged_in_place_are_loaded_anew_and_a_bad_exchange_changes_nothing(served: Served) -> None:
    served.load_all()
    before = served.registry.find("doubler", "")
    served.manager.poll_once()
    assert served.registry.find("doubler", "") is before
    break_version(served.root, 2)
    served.manager.poll_once()
    assert served.registry.find("doubler", "") is before
    onnx_models.save_doubler(served.root, version=2)
    served.manager.poll_once()
    assert served.registry.find("doubler", "") is not before


def test_a_version_that_was_replaced_leaves_nothing_behind(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    trims: list[None] = []
    served.load_all()
    before = weakref.ref(served.registry.find("doubler", "").batcher)
    monkeypatch.setattr(manager_module, "trim_heap", lambda: trims.append(None))
    onnx_models.save_doubler(served.root, version=3)
    served.manager.poll_once()
    for thread in threading.enumerate():
        if thread.name == "drain":
            thread.join(10)
    assert before() is None  # without a garbage collection, which may come much later
    assert len(trims) == 1


def test_labelled_versions_are_served_and_labels_can_move(served: Served) -> None:
    write_version_labels(served.root / "doubler", {"stable": 1})
    served.load_all()
    assert served.answers(version="stable") == "1"
    assert served.answers() == "2"
    write_version_labels(served.root / "doubler", {"stable": 2, "old": 1})
    served.manager.poll_once()
    assert (served.answers(version="stable"), served.answers(version="old")) == ("2", "1")
    write_version_labels(served.root / "doubler", {"stable": 2})
    served.manager.poll_once()
    assert served.states() == {"1": State.UNAVAILABLE, "2": State.READY}
    with pytest.raises(InvalidRequestError, match="nor one of its labels: stable"):
        served.answers(version="old")


def test_the_policy_of_config_pbtxt_says_which_versions_are_served_and_can_change(served: Served) -> None:
    config = served.root / "doubler" / "config.pbtxt"
    config.write_text("version_policy { all {} }")
    served.load_all()
    assert served.states() == {"1": State.READY, "2": State.READY}
    assert served.answers() == "2"
    config.write_text("version_policy { specific { versions: 1 } }")
    served.manager.poll_once()
    assert served.states() == {"1": State.READY, "2": State.UNAVAILABLE}
    assert served.answers() == "1"
    config.write_text("version_policy { nonsense {} }")
    served.manager.poll_once()
    assert served.answers() == "1"  # what answered goes on


def test_a_label_of_a_version_that_is_not_there_is_named_when_asked_for(served: Served) -> None:
    write_version_labels(served.root / "doubler", {"next": 9})
    served.load_all()
    with pytest.raises(ModelNotFoundError, match="version '9'"):
        served.answers(version="next")


def test_labels_that_cannot_be_read_leave_those_in_force(served: Served) -> None:
    write_version_labels(served.root / "doubler", {"stable": 1})
    served.load_all()
    (served.root / "doubler" / LABELS_FILE).write_text("<html>")
    served.manager.poll_once()
    assert served.answers(version="stable") == "1"


def faults_of_labels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "labels not changed" in record.getMessage()]


def test_labels_that_cannot_be_read_are_logged_once_for_each_change_of_them(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    file = served.root / "doubler" / LABELS_FILE
    served.load_all()
    for count, text in enumerate(("<html>", "<body>", '{"labels": {"1": 1}}', "<html>"), start=1):
        file.write_text(text)  # the first two are the same fault, to the letter
        for _ in range(20):
            served.manager.poll_once()
        assert len(faults_of_labels(caplog)) == count
        assert str(file) in faults_of_labels(caplog)[-1]


@pytest.mark.parametrize("mended", ["read again", "model gone"])
def test_labels_that_broke_anew_are_logged_again(served: Served, caplog: pytest.LogCaptureFixture, mended: str) -> None:
    model = served.root / "doubler"
    for count in (1, 2):
        onnx_models.save_doubler(served.root, version=2)
        (model / LABELS_FILE).write_text("<html>")
        served.manager.poll_once()
        served.manager.poll_once()
        assert len(faults_of_labels(caplog)) == count
        if mended == "read again":
            (model / LABELS_FILE).unlink()
        else:
            shutil.rmtree(model)
        served.manager.poll_once()


def test_traffic_is_split_between_labels_whose_versions_serve(served: Served) -> None:
    labels = served.root / "doubler"
    write_version_labels(labels, {"stable": 1, "canary": 2}, {"stable": 3, "canary": 1})
    served.load_all()
    versions = [served.answers() for _ in range(100)]
    assert 20 <= versions.count("2") <= 30
    assert len({served.registry.find("doubler", "", request_id="me").version for _ in range(20)}) == 1
    break_version(served.root, 3)
    write_version_labels(labels, {"stable": 1, "canary": 3}, {"stable": 1, "canary": 1})
    served.manager.poll_once()
    assert {served.answers() for _ in range(20)} == {"1"}


def change(served: Served, action: str, model: str) -> Exception | None:
    """Load or unload a model as a client asks for it; how it went."""
    done, outcome = threading.Event(), []

    def hear(error: Exception | None) -> None:
        outcome.append(error)
        done.set()

    getattr(served.manager, action)(model, hear)
    assert done.wait(10)
    return outcome[0]


def test_a_model_can_be_unloaded_and_loaded_on_request(served: Served) -> None:
    served.load_all()
    assert change(served, "unload_model", "doubler") is None
    with pytest.raises(ModelNotReadyError, match="unloaded on request"):
        served.answers()
    served.manager.poll_once()
    assert served.states() == {"1": State.UNAVAILABLE, "2": State.UNAVAILABLE}
    assert change(served, "load_model", "doubler") is None
    assert served.answers() == "2"
    assert change(served, "unload_model", "never heard of") is None


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("absent", ModelNotFoundError, "'absent' is not in the repository"),
        ("../doubler", InvalidRequestError, "is not the name of a folder"),
        ("/etc", InvalidRequestError, "is not the name of a folder"),
        ("", InvalidRequestError, "is not the name of a folder"),
        (".hidden", InvalidRequestError, "is not the name of a folder"),
        ("a\0b", InvalidRequestError, "is not the name of a folder"),
    ],
)
def test_loading_what_is_no_model_of_the_repository_is_refused(
    served: Served, name: str, error: type[Exception], message: str
) -> None:
    served.load_all()
    outcome = change(served, "load_model", name)
    assert isinstance(outcome, error)
    assert message in str(outcome)


def test_loading_a_broken_model_says_why_and_keeps_what_serves(served: Served) -> None:
    served.load_all()
    break_version(served.root, 3)
    outcome = change(served, "load_model", "doubler")
    assert isinstance(outcome, ModelLoadError)
    assert "doubler/3/model.onnx" in str(outcome)
    assert served.answers() == "2"


def test_a_repository_that_vanishes_while_polling_leaves_everything_served(served: Served) -> None:
    served.load_all()
    shutil.move(served.root, served.root.with_name("elsewhere"))
    served.manager.poll_once()
    assert served.answers() == "2"
