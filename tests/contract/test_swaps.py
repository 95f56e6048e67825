"""Versions and labels change under load, and no request notices."""

import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from inferry_proto.version_labels import write_version_labels
from inferry_server.app import Server
from testkit import onnx_models
from testkit.callers import Callers
from testkit.servers import running_server
from testkit.waiting import wait_until

SWAPS = 100


@pytest.fixture
def server(tmp_path: Path, transport: str) -> Iterator[Server]:
    for version in (1, 2):
        onnx_models.save_doubler(tmp_path, version=version)
    with running_server(tmp_path, model_control="explicit", transport=transport) as running:
        yield running


class SwapCallers(Callers):
    """Callers that ask without pause, and keep every answer's version and every error."""

    def __init__(self, address: str, count: int, version: str = "") -> None:
        super().__init__(count)
        self.versions: Counter[str] = Counter()
        self.errors: list[str] = []
        self._address = address
        self._version = version

    def have_met(self, version: int) -> bool:
        """Whether an answer came from that version, or none is to be expected any more."""
        return str(version) in self.versions or bool(self.errors)

    def call(self, number: int) -> None:
        """Ask for the double of ones."""
        x = np.ones((2, 3), np.float32)
        with triton.InferenceServerClient(self._address) as client:
            tensor = triton.InferInput("x", x.shape, "FP32")
            tensor.set_data_from_numpy(x)
            while self.goes_on(0):
                try:
                    result = client.infer("doubler", [tensor], model_version=self._version)
                    assert (result.as_numpy("y") == 2).all()
                    self.versions[result.get_response().model_version] += 1
                except InferenceServerException as error:
                    self.errors.append(str(error))


def test_a_hundred_swaps_and_label_moves_under_load_fail_no_request(server: Server, tmp_path: Path) -> None:
    address = str(server.grpc_address)
    write_version_labels(tmp_path / "doubler", {"stable": 1})
    with triton.InferenceServerClient(address) as control:
        control.load_model("doubler")
        with SwapCallers(address, 2) as newest, SwapCallers(address, 2, "stable") as stable:
            for swap in range(SWAPS):
                version = 3 + swap
                onnx_models.save_doubler(tmp_path, version=version)
                write_version_labels(tmp_path / "doubler", {"stable": version - 1})
                control.load_model("doubler")
                wait_until(partial(newest.have_met, version), f"version {version}")
                wait_until(partial(stable.have_met, version - 1), f"version {version - 1}")
    assert newest.errors == stable.errors == []


def test_loading_and_unloading_from_outside_needs_the_setting(tmp_path: Path, transport: str) -> None:
    onnx_models.save_doubler(tmp_path)
    with (
        running_server(tmp_path, transport=transport) as closed,
        triton.InferenceServerClient(str(closed.grpc_address)) as client,
    ):
        for action in (client.load_model, client.unload_model):
            with pytest.raises(InferenceServerException, match="model_control=explicit") as error:
                action("doubler")
            assert "FAILED_PRECONDITION" in str(error.value.status())
        assert "model_repository" not in client.get_server_metadata().extensions


def test_a_client_loads_and_unloads_models_by_name(server: Server, tmp_path: Path) -> None:
    onnx_models.save_two_inputs(tmp_path)
    with triton.InferenceServerClient(str(server.grpc_address)) as client:
        assert "model_repository" in client.get_server_metadata().extensions
        assert not client.is_model_ready("joiner")
        client.load_model("joiner")
        assert client.is_model_ready("joiner")
        client.unload_model("joiner")
        client.unload_model("never heard of")
        assert not client.is_model_ready("joiner")
        with pytest.raises(InferenceServerException, match="unloaded on request") as error:
            client.get_model_metadata("joiner")
        assert "UNAVAILABLE" in str(error.value.status())
        with pytest.raises(InferenceServerException, match="load parameters 'config' are not offered"):
            client.load_model("doubler", config="{}")
        with pytest.raises(InferenceServerException, match="is not in the repository") as error:
            client.load_model("absent")
        assert "NOT_FOUND" in str(error.value.status())


def test_a_server_that_polls_follows_the_repository(tmp_path: Path, transport: str) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path, model_control="poll", poll_interval_s=0.05, transport=transport) as polling:
        loaded = threading.Event()
        onnx_models.save_scalar_adder(tmp_path)
        with triton.InferenceServerClient(str(polling.grpc_address)) as client:
            for _ in range(400):
                if client.is_model_ready("adder"):
                    loaded.set()
                    break
                loaded.wait(0.05)
        assert loaded.is_set()
