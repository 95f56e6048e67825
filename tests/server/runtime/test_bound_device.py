"""Bound inputs and outputs, with ONNX Runtime's real binding: the CPU plays the device."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from inferry_server.batching.request import ladder
from inferry_server.errors import DeviceLostError, DeviceOutOfMemoryError, InferenceError
from inferry_server.runtime.capture_gate import CaptureGate
from inferry_server.runtime.cuda_options import CudaOptions, provider_options
from inferry_server.runtime.device import BoundDevice, Device, PlainDevice, can_be_bound
from inferry_server.runtime.device_errors import OUT_OF_MEMORY, CudaCallError
from inferry_server.runtime.device_health import DeviceHealth
from inferry_server.runtime.instance import DeviceInstance
from inferry_server.runtime.providers import CPU, CUDA, TENSORRT
from inferry_server.runtime.session import OnnxSession, load_session
from testkit import onnx_models
from testkit.fake_device import ILLEGAL_ACCESS, FaultyMemory

STEPS = ladder(12)


def load(path: Path) -> OnnxSession:
    return load_session(path, providers=(CPU,), intra_op_num_threads=1)


def bind(session: OnnxSession, memory: FaultyMemory, *, cuda_graphs: bool = False) -> BoundDevice:
    return BoundDevice(session, memory, session.signature, steps=STEPS, gate=CaptureGate(), cuda_graphs=cuda_graphs)


@pytest.fixture
def joiner(tmp_path: Path) -> OnnxSession:
    onnx_models.save_two_inputs(tmp_path)
    return load(tmp_path / "joiner" / "1" / "model.onnx")


def test_every_number_of_rows_is_answered_as_the_session_answers_it(joiner: OnnxSession) -> None:
    one = DeviceInstance(bind(joiner, FaultyMemory()), STEPS, DeviceHealth())
    random = np.random.default_rng(0)
    for rows in (12, 1, 5, 12, 7, 30, 2):  # up and down: no batch sees what another one left
        inputs = {name: random.random((rows, 2), np.float32) for name in ("left", "right")}
        expected = joiner.run(inputs)
        for name, array in one.run(inputs).items():
            np.testing.assert_array_equal(array, expected[name])


def test_a_batch_put_together_in_staging_memory_is_answered_as_any_other(joiner: OnnxSession) -> None:
    one = DeviceInstance(bind(joiner, FaultyMemory()), STEPS, DeviceHealth())
    random = np.random.default_rng(0)
    for rows in (12, 1, 8, 12):
        inputs = {name: random.random((rows, 2), np.float32) for name in ("left", "right")}
        staged = one.staging(rows)
        assert staged is not None
        for name, array in inputs.items():
            staged[name][:] = array
        expected = joiner.run(inputs)
        for name, array in one.run(staged).items():
            np.testing.assert_array_equal(array, expected[name])
    assert one.staging(5) is None  # no size that it was prepared for


def test_staging_memory_that_is_cut_into_smaller_runs_loses_no_row(joiner: OnnxSession) -> None:
    memory = FaultyMemory()
    one = DeviceInstance(bind(joiner, memory), STEPS, DeviceHealth())
    memory.fail_with = [CudaCallError("cudaStreamSynchronize", OUT_OF_MEMORY, "out of memory")]
    inputs = {name: np.arange(24, dtype=np.float32).reshape(12, 2) for name in ("left", "right")}
    with pytest.raises(DeviceOutOfMemoryError):
        one.run(inputs)
    staged = one.staging(12)
    assert staged is not None
    for name, array in inputs.items():
        staged[name][:] = array
    assert one.batch_limit == 4
    for name, array in one.run(staged).items():
        np.testing.assert_array_equal(array, joiner.run(inputs)[name])


def test_outputs_are_not_overwritten_by_the_next_batch(joiner: OnnxSession) -> None:
    device = bind(joiner, FaultyMemory())
    one, two = (np.full((4, 2), value, np.float32) for value in (1, 2))
    first = device.run({"left": one, "right": one})
    device.run({"left": two, "right": two})
    assert np.unique(first["total"]).tolist() == [2.0]


def test_uint8_pixels_and_views_that_are_not_contiguous_are_taken(tmp_path: Path) -> None:
    onnx_models.save_brightness(tmp_path)
    session = load(tmp_path / "brightness" / "1" / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 1), np.uint8)[::2]
    np.testing.assert_array_equal(
        bind(session, FaultyMemory()).run({"images": images})["probabilities"],
        session.run({"images": np.ascontiguousarray(images)})["probabilities"],
    )


def test_bfloat16_travels_as_it_is(tmp_path: Path) -> None:
    onnx_models.save_half_echo(tmp_path, name="echo", element_type=TensorProto.BFLOAT16)
    session = load(tmp_path / "echo" / "1" / "model.onnx")
    bits = np.arange(4, dtype=np.uint16).view(session.signature.inputs[0].datatype.dtype).reshape(2, 2)
    assert bind(session, FaultyMemory()).run({"in": bits})["out"].tobytes() == bits.tobytes()


def test_sizes_that_nobody_knows_before_are_left_to_onnx_runtime(tmp_path: Path) -> None:
    onnx_models.save_text_echo(tmp_path)
    session = load(tmp_path / "echo" / "1" / "model.onnx")
    assert not can_be_bound(session.signature)
    device: Device = PlainDevice(session, FaultyMemory(), CaptureGate())
    text = np.array([["a", "b"]], object)
    assert device.run({"in": text})["out"].tolist() == [["a", "b"]]
    assert device.record({"in": text}) is None


def test_a_failed_batch_leaves_nothing_behind_for_the_next(tmp_path: Path) -> None:
    onnx_models.save_picky(tmp_path)
    session = load(tmp_path / "picky" / "1" / "model.onnx")
    one = DeviceInstance(bind(session, FaultyMemory()), STEPS, DeviceHealth())
    with pytest.raises(InferenceError, match="the model failed"):
        one.run({"index": np.array([1, 99], np.int64)})
    assert one.run({"index": np.array([3, 1], np.int64)})["y"].tolist() == [30.0, 10.0]


def test_what_a_kernel_did_is_met_when_the_stream_is_waited_for(joiner: OnnxSession) -> None:
    memory, told = FaultyMemory(), list[str]()
    one = DeviceInstance(bind(joiner, memory), STEPS, DeviceHealth(told.append))
    memory.fail_with = [CudaCallError("cudaStreamSynchronize", ILLEGAL_ACCESS, "an illegal memory access")]
    pair = np.ones((1, 2), np.float32)
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        one.run({"left": pair, "right": pair})
    assert len(told) == 1


def test_recording_runs_each_step_under_its_own_number_and_memory_goes_back_after_a_shortage(
    joiner: OnnxSession,
) -> None:
    device = bind(joiner, FaultyMemory(), cuda_graphs=True)
    pair = np.ones((4, 2), np.float32)
    outputs = device.record({"left": pair, "right": pair})
    assert outputs is not None
    assert np.unique(outputs["total"]).tolist() == [2.0]
    plain = bind(joiner, FaultyMemory())
    plain.give_back_memory()
    assert np.unique(plain.run({"left": pair, "right": pair})["total"]).tolist() == [2.0]


def test_close_gives_the_memory_back(joiner: OnnxSession) -> None:
    memory = FaultyMemory()
    bind(joiner, memory).close()
    assert (memory.closed, memory.used_bytes()) == (True, 0)


def test_every_choice_reaches_onnx_runtime() -> None:
    options = CudaOptions(1 << 30, "exhaustive", tf32=True, cuda_graphs=True, prefer_nhwc="on")
    chosen = dict(provider_options((TENSORRT, CUDA, CPU), options, device_id=1, stream=77))
    assert chosen[CUDA] == {
        "device_id": "1", "user_compute_stream": "77", "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "EXHAUSTIVE", "use_tf32": "1", "enable_cuda_graph": "1", "prefer_nhwc": "1",
        "gpu_mem_limit": str(1 << 30),
    }  # fmt: skip
    assert chosen[TENSORRT]["device_id"] == "1"
    usual = dict(provider_options((CUDA, CPU), CudaOptions(), device_id=0, stream=7))[CUDA]
    assert (usual["use_tf32"], usual["enable_cuda_graph"]) == ("0", "1")
    assert "gpu_mem_limit" not in usual
    plain = dict(provider_options((CUDA, CPU), options.without_graphs(), device_id=0, stream=7))[CUDA]
    assert plain == {**chosen[CUDA], "device_id": "0", "user_compute_stream": "7", "enable_cuda_graph": "0"}


@pytest.mark.parametrize(
    ("layout", "precision", "nhwc"),
    [
        ("auto", "float16", "1"), ("auto", "float32", "0"), ("auto", "", "0"),
        ("on", "float32", "1"), ("off", "float16", "0"),
    ],
)  # fmt: skip
def test_pictures_are_laid_out_as_the_precision_wants_unless_somebody_says_how(
    layout: str, precision: str, nhwc: str
) -> None:
    options = CudaOptions(prefer_nhwc=layout).for_precision(precision)
    assert dict(provider_options((CUDA, CPU), options, device_id=0, stream=7))[CUDA]["prefer_nhwc"] == nhwc
