"""Models on a device, from loading to a lost device: all of the server is real, and the CPU plays the device."""

import collections
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton
from prometheus_client import generate_latest

from inferry_proto.manifest import read_manifest, write_manifest
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import ModelLoadError
from inferry_server.models import loading, opening
from inferry_server.models.registry import State
from inferry_server.models.repository import VersionFolder
from inferry_server.models.self_check import SelfCheck
from inferry_server.models.version import ServedVersion
from inferry_server.runtime.cuda_options import CudaOptions
from inferry_server.runtime.device_errors import OUT_OF_MEMORY, CudaCallError
from inferry_server.runtime.driver import read_driver
from inferry_server.runtime.instances import Devices
from inferry_server.runtime.providers import CPU, CUDA
from inferry_server.telemetry.metrics import ServerMetrics
from testkit import onnx_models
from testkit.fake_device import FaultyMemory
from testkit.faulty_server import opened_with
from testkit.servers import running_server

TESTS = Path(__file__).parents[2]
FAULTY_SERVER = TESTS / "testkit" / "faulty_server.py"
OUT_OF = CudaCallError("cudaMalloc", OUT_OF_MEMORY, "out of memory")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> FaultyMemory:
    """Where every model computes."""
    memory = FaultyMemory()
    monkeypatch.setattr(opening, "open_session", opened_with(memory))
    return memory


on_device = partial(running_server, parallel_runs=False)
"""A server of models that compute on the device: only those on a CPU have parallel runs, if these are quicker."""


def classify(
    client: triton.InferenceServerClient, level: int, rows: int = 1
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    tensor = triton.InferInput("images", [rows, 4, 4, 1], "UINT8")
    tensor.set_data_from_numpy(np.full((rows, 4, 4, 1), level, np.uint8))
    answer: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = client.infer("brightness", [tensor]).as_numpy(
        "probabilities"
    )
    return answer


def test_requests_of_any_size_get_replies_and_the_memory_is_given_back(tmp_path: Path, memory: FaultyMemory) -> None:
    onnx_models.save_brightness(tmp_path)
    with on_device(tmp_path) as server, triton.InferenceServerClient(str(server.grpc_address)) as client:
        for rows in (1, 3, 32, 100, 256):
            np.testing.assert_allclose(classify(client, 51, rows), np.full((rows, 2), [0.8, 0.2]), atol=1e-6)
        assert memory.used_bytes() > 0
        page = generate_latest(server.metrics.registry).decode()
        assert 'inferry_model_info{model="brightness",provider="CPUExecutionProvider",version="1"} 1.0' in page
        assert 'inferry_batch_limit_rows{model="brightness",version="1"} 32.0' in page
    assert memory.closed


def test_short_memory_fails_one_request_with_a_hint_and_the_next_gets_its_reply(
    tmp_path: Path, memory: FaultyMemory
) -> None:
    onnx_models.save_brightness(tmp_path)
    with on_device(tmp_path) as server, triton.InferenceServerClient(str(server.grpc_address)) as client:
        memory.fail_with = [OUT_OF]
        with pytest.raises(triton.InferenceServerException, match=r"no memory for a batch of 32 rows; .* at most 16"):
            classify(client, 51, 32)
        assert classify(client, 255, 32)[:, 1].tolist() == [1.0] * 32
        assert server.readiness.is_ready()
        page = generate_latest(server.metrics.registry).decode()
        assert 'inferry_batch_limit_rows{model="brightness",version="1"} 16.0' in page
        assert 'inferry_device_errors_total{kind="out_of_memory"} 1.0' in page


def test_memory_that_is_short_while_loading_lowers_the_limit_before_anybody_asks(
    tmp_path: Path, memory: FaultyMemory
) -> None:
    onnx_models.save_brightness(tmp_path)
    memory.fail_with = [OUT_OF, OUT_OF]
    with on_device(tmp_path) as server:
        assert [one.batch_limit for one in server.registry.served()[0].instances] == [8]


def test_memory_for_not_even_one_row_keeps_the_version_from_being_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, folder = load_with(tmp_path, monkeypatch, lambda *_: None)
    options.devices.open_memory(0).always_fail_with = OUT_OF  # type: ignore[attr-defined]
    with pytest.raises(ModelLoadError, match="warm-up failed: the device has no memory for a batch of 1 rows"):
        loading.load_version(folder, options)


def test_a_lost_device_turns_readiness_off_and_says_so_once(tmp_path: Path, memory: FaultyMemory) -> None:
    onnx_models.save_brightness(tmp_path)
    with on_device(tmp_path) as server, triton.InferenceServerClient(str(server.grpc_address)) as client:
        memory.fail_with = [CudaCallError("cudaStreamSynchronize", 700, "an illegal memory access was encountered")]
        for _ in range(2):
            with pytest.raises(
                triton.InferenceServerException, match="the device is lost, ask another replica"
            ) as lost:
                classify(client, 51)
            assert "UNAVAILABLE" in str(lost.value.status())
        assert not client.is_server_ready()
        assert client.is_server_live()
        assert "illegal memory access" in (server.readiness.fault or "")
        assert 'inferry_device_errors_total{kind="lost"} 1.0' in generate_latest(server.metrics.registry).decode()


def test_the_process_ends_with_its_own_status_after_a_device_was_lost(tmp_path: Path) -> None:
    onnx_models.save_brightness(tmp_path)
    command = [sys.executable, FAULTY_SERVER, "90", "--repository", tmp_path, "--provider", "cpu"]
    command += ["--grpc-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"]
    with subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split("gRPC ")[1].split(",")[0]
            lost = pytest.raises(triton.InferenceServerException, match="the device is lost")
            with triton.InferenceServerClient(address) as client, lost:
                collections.deque(map(classify, [client] * 91, range(91)), maxlen=0)  # each request is a batch
            _, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 3
    assert stderr.count("the device is lost, and this server with it") == 1
    assert "Traceback" not in stderr


def test_wrong_outputs_at_a_self_check_withdraw_the_version(tmp_path: Path, memory: FaultyMemory) -> None:
    onnx_models.save_brightness(tmp_path)
    with on_device(tmp_path) as server:
        counted: list[str] = []
        failed: list[str] = []

        def withdraw(version: ServedVersion, reason: str) -> None:
            failed.append(reason)
            server._withdraw(version, reason)

        check = SelfCheck(server.registry.served, withdraw, lambda _, outcome: counted.append(outcome))
        check.check_all()
        memory.flip = 0x40
        check.check_all()
        assert counted == ["passed", "failed"]
        assert "differ" in failed[0]
        assert not server.readiness.is_ready()
        (entry,) = server.registry.index()
        assert (entry.state, entry.served, entry.reason) == (State.UNAVAILABLE, None, failed[0])
        check.check_all()
        assert counted == ["passed", "failed"]  # nothing is left to be asked


def test_self_checks_run_by_themselves_and_a_full_queue_is_no_failure(tmp_path: Path, memory: FaultyMemory) -> None:
    onnx_models.save_brightness(tmp_path)
    with on_device(tmp_path, self_check_interval_s=0.01) as server:
        (version,) = server.registry.served()
        passed = 'inferry_self_checks_total{model="brightness",outcome="passed"}'
        ends = time.monotonic() + 30
        while passed not in generate_latest(server.metrics.registry).decode():
            assert time.monotonic() < ends
        version.batcher.close(5)  # as a version that is going away
        outcomes: list[str] = []
        SelfCheck(lambda: [version], lambda *_: None, lambda _, outcome: outcomes.append(outcome)).check_all()
        assert outcomes == ["skipped"]
        assert server.readiness.is_ready()


def plain_options(tmp_path: Path) -> tuple[loading.LoadOptions, VersionFolder]:
    onnx_models.save_brightness(tmp_path)
    policy = BatchingPolicy(max_batch_size=4, max_request_rows=8, max_queue_size=64, max_queue_bytes=1 << 20)
    folder = VersionFolder("brightness", 1, tmp_path / "brightness" / "1")
    return loading.LoadOptions((CPU,), 1, 1, policy, ServerMetrics()), folder


def load_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Callable[..., object]
) -> tuple[loading.LoadOptions, VersionFolder]:
    """Options for a device that records in its own way."""
    memory = FaultyMemory()
    monkeypatch.setattr(opening, "open_session", opened_with(memory))
    monkeypatch.setattr("inferry_server.runtime.device.BoundDevice.record", record)
    options, folder = plain_options(tmp_path)
    return replace(options, devices=Devices(CudaOptions(cuda_graphs=True), open_memory=lambda _: memory)), folder


def test_what_cannot_be_recorded_is_served_without_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def record(self: object, inputs: object) -> None:
        if self._cuda_graphs:  # type: ignore[attr-defined]
            raise RuntimeError("operation not permitted when stream is capturing")

    options, folder = load_with(tmp_path, monkeypatch, record)
    version = loading.load_version(folder, options)
    assert "served without CUDA graphs" in caplog.text
    assert version.close(5)


def test_a_golden_tolerance_is_stated_for_each_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, folder = load_with(tmp_path, monkeypatch, lambda *_: None)
    manifest = read_manifest(folder.path)
    assert manifest is not None
    del manifest.golden_samples.tolerances["CPUExecutionProvider"]
    write_manifest(folder.path, manifest)
    with pytest.raises(ModelLoadError, match="no golden tolerance for CPUExecutionProvider"):
        loading.load_version(folder, options)


def test_several_gpus_get_the_instances_and_a_lost_one_loads_no_more(tmp_path: Path) -> None:
    options, folder = plain_options(tmp_path)
    (tmp_path / "brightness" / "config.pbtxt").write_text("instance_group { count: 2 kind: KIND_GPU gpus: [ 0, 3 ] }")
    opened: list[int] = []

    def open_memory(device_id: int) -> FaultyMemory:
        opened.append(device_id)
        raise CudaCallError("cudaSetDevice", 101, "invalid device ordinal")

    devices = Devices(open_memory=open_memory)
    options = replace(options, providers=(CUDA, CPU), devices=devices)
    with pytest.raises(ModelLoadError, match="GPU 0 cannot be used: cudaSetDevice: CUDA error 101"):
        loading.load_version(folder, options)
    assert options.devices.health.lost_reason is None
    devices.health.report_lost("an illegal memory access")
    with pytest.raises(ModelLoadError, match="the device is lost"):
        loading.load_version(folder, options)
    assert opened == [0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            'parameters { key: "provider" value { string_value: "gpu" } }',
            "provider is 'gpu'; expected one of auto, cpu",
        ),
        ("instance_group { kind: KIND_CPU gpus: [ 0 ] }", r"names gpus \[0\] for KIND_CPU"),
        ("instance_group { gpus: [ 0, 0 ] }", r"names gpus \[0, 0\]; expected different numbers"),
        ("instance_group [{ gpus: [ 0 ] }, { gpus: [ 1 ] }]", "expected the same for all instances"),
        (
            'instance_group { kind: KIND_CPU } parameters { key: "provider" value { string_value: "cuda" } }',
            "cuda was asked for|provider is cuda, and instance_group asks for KIND_CPU",
        ),
    ],
)
def test_a_models_own_choice_is_checked(tmp_path: Path, config: str, message: str) -> None:
    options, folder = plain_options(tmp_path)
    (tmp_path / "brightness" / "config.pbtxt").write_text(config)
    with pytest.raises(ModelLoadError, match=message):
        loading.load_version(folder, options)


def test_a_model_may_stay_on_the_cpu_where_the_server_has_a_gpu(tmp_path: Path) -> None:
    options, folder = plain_options(tmp_path)
    (tmp_path / "brightness" / "config.pbtxt").write_text(
        'parameters { key: "provider" value { string_value: "cpu" } }'
    )
    version = loading.load_version(folder, replace(options, providers=(CUDA, CPU)))
    assert (version.provider, version.gpus) == (CPU, ())
    assert version.close(5)


@pytest.mark.skipif(CUDA not in onnxruntime.get_available_providers(), reason="this ONNX Runtime has no CUDA provider")
@pytest.mark.skipif(read_driver() is not None, reason="this machine has a GPU")
def test_a_provider_that_onnx_runtime_drops_is_an_error_that_names_the_library(tmp_path: Path) -> None:
    options, folder = plain_options(tmp_path)
    devices = Devices(open_memory=lambda _: FaultyMemory())
    with pytest.raises(ModelLoadError, match=r"CUDAExecutionProvider.*was not found: install|cannot load it"):
        loading.load_version(folder, replace(options, providers=(CUDA, CPU), devices=devices))
