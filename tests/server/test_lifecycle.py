"""When the server says that it is ready, from start to stop."""

from pathlib import Path
from typing import Any

import pytest

from inferry_server.app import Server
from inferry_server.errors import ModelNotFoundError, ModelNotReadyError, StartError
from inferry_server.lifecycle import Phase, Readiness
from inferry_server.models.registry import ModelRegistry
from inferry_server.runtime import instances
from inferry_server.runtime.session import OnnxSession, load_session
from inferry_server.settings.settings import Settings
from testkit import onnx_models
from testkit.servers import ANY_PORT


def build(repository: Path) -> Server:
    return Server(Settings(repository=repository, grpc_address=ANY_PORT, http_address=ANY_PORT, provider="cpu"))


def test_a_server_is_ready_from_its_last_model_on_until_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        onnx_models.save_doubler(tmp_path, name=name)
    server = build(tmp_path)
    while_loading: list[bool] = []

    def seen_loading(*arguments: Any, **options: Any) -> OnnxSession:
        while_loading.append(server.readiness.is_ready())
        return load_session(*arguments, **options)

    monkeypatch.setattr(instances, "load_session", seen_loading)
    server.start()
    after_start = server.readiness.is_ready()
    assert server.stop()
    assert len(while_loading) >= 2
    assert while_loading == [False] * len(while_loading)
    assert (after_start, server.readiness.is_ready()) == (True, False)


def test_a_model_that_a_start_has_not_come_to_is_not_ready_rather_than_unknown() -> None:
    registry = ModelRegistry(lambda: None)
    registry.expect(["mnist"])
    with pytest.raises(ModelNotReadyError, match="LOADING"):
        registry.find("mnist", "")
    with pytest.raises(ModelNotFoundError):
        registry.find("other", "")
    registry.expect(())
    with pytest.raises(ModelNotFoundError):
        registry.find("mnist", "")


def test_a_start_that_is_broken_off_never_becomes_ready(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    server = build(tmp_path)
    server.start(lambda: True)
    assert not server.readiness.is_ready()
    assert server.registry.served() == []
    assert server.stop()


def test_a_server_whose_models_all_fail_stops_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken" / "1").mkdir(parents=True)
    server = build(tmp_path)
    with pytest.raises(StartError, match=r"model\.onnx is missing"):
        server.start()
    assert not server.readiness.is_ready()


def test_phases_only_move_forward_and_each_is_told_once() -> None:
    told: list[bool] = []
    readiness = Readiness(lambda: told.append(readiness.is_ready()))
    for phase in (Phase.READY, Phase.READY, Phase.DRAINING, Phase.READY, Phase.STARTING):
        readiness.enter(phase)
    assert told == [True, False]
    assert not readiness.is_ready()
