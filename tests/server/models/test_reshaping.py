"""`reshape` in config.pbtxt: clients see one shape, the model has another."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from inferry_proto.golden import GoldenSamples, save_golden_samples
from inferry_proto.manifest import FORMAT_VERSION, describe_file, write_manifest
from inferry_proto.manifest_pb2 import ModelManifest
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import InferenceError, ModelLoadError
from inferry_server.models.loading import LoadOptions, load_version
from inferry_server.models.repository import VersionFolder
from inferry_server.models.reshaping import Reshape, Reshaping
from inferry_server.models.version import ServedVersion
from inferry_server.runtime.providers import CPU
from inferry_server.telemetry.metrics import ServerMetrics
from testkit import onnx_models
from testkit.servers import running_server


def save_identity(repository: Path, name: str, shape: list[Any], config: str) -> None:
    """`y = x`, float32, of this shape."""
    onnx_models.save_model(
        repository / name / "1" / "model.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    (repository / name / "config.pbtxt").write_text(config)


def load(repository: Path, model: str) -> ServedVersion:
    policy = BatchingPolicy(max_batch_size=8, max_request_rows=8, max_queue_size=64, max_queue_bytes=1 << 20)
    folder = VersionFolder(model, 1, repository / model / "1")
    served = load_version(folder, LoadOptions((CPU,), 1, 1, policy, ServerMetrics()))
    served.batcher.close(1)
    return served


def both(text: str) -> str:
    return f'input {{ name: "x" {text} }} output {{ name: "y" {text} }}'


MODELS: dict[str, tuple[list[Any], str, list[int], list[int]]] = {
    # the model's shape, its configuration, what a client sends, the dims that it sees
    "a_batch_of_one": (
        [1, 3, 2],
        "max_batch_size: 0 " + both("dims: [ 3, 2 ] reshape { shape: [ 1, 3, 2 ] }"),
        [3, 2],
        [3, 2],
    ),
    "scalar_rows": (["N"], "max_batch_size: 8 " + both("dims: [ 1 ] reshape: { shape: [ ] }"), [5, 1], [-1, 1]),
    "free_length": (
        ["N", 1, "T", 2],
        "max_batch_size: 8 " + both("dims: [ -1, 2 ] reshape { shape: [ 1, -1, 2 ] }"),
        [3, 4, 2],
        [-1, -1, 2],
    ),
    "flat": (["N", 2, 3], "max_batch_size: 8 " + both("dims: [ 6 ] reshape { shape: [ 2, 3 ] }"), [12, 6], [-1, 6]),
}


def test_clients_see_the_declared_shapes_and_the_model_gets_its_own(tmp_path: Path) -> None:
    for name, (shape, config, _, _) in MODELS.items():
        save_identity(tmp_path, name, shape, config)
    with running_server(tmp_path) as server, triton.InferenceServerClient(str(server.grpc_address)) as client:
        for name, (_, _, sent, dims) in MODELS.items():
            metadata = client.get_model_metadata(name)
            assert [list(tensor.shape) for tensor in (*metadata.inputs, *metadata.outputs)] == [dims, dims]
            x = np.random.default_rng(0).random(sent, np.float32)
            tensor = triton.InferInput("x", sent, "FP32")
            tensor.set_data_from_numpy(x)
            np.testing.assert_array_equal(client.infer(name, [tensor]).as_numpy("y"), x)
        config = client.get_model_config("scalar_rows").config
        assert (list(config.input[0].dims), config.input[0].HasField("reshape")) == ([1], True)
        assert list(client.get_model_config("flat").config.output[0].reshape.shape) == [2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "dims: [ 6 ] reshape { shape: [ 2, 2 ] }",
            r"'y' is declared with reshape \[2, 2\]; the model has for each row",
        ),
        ("dims: [ 7 ] reshape { shape: [ 2, 3 ] }", r"dims \[-1, 7\] cannot be reshaped to \[-1, 2, 3\]"),
        ("dims: [ -1 ] reshape { shape: [ 2, 3 ] }", "as many axes of free length"),
        ("reshape { shape: [ 2, 3 ] }", "has a reshape and no dims"),
    ],
)
def test_a_reshape_that_cannot_be_keeps_the_model_from_being_served(tmp_path: Path, text: str, message: str) -> None:
    save_identity(tmp_path, "flat", ["N", 2, 3], "max_batch_size: 8 " + both(text))
    with pytest.raises(ModelLoadError, match=message):
        load(tmp_path, "flat")


def test_golden_samples_are_recorded_in_the_models_shape_and_asked_in_the_clients(tmp_path: Path) -> None:
    save_identity(tmp_path, "flat", ["N", 2, 3], "max_batch_size: 8 " + both("dims: [ 6 ] reshape { shape: [ 2, 3 ] }"))
    folder = tmp_path / "flat" / "1"
    x = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    save_golden_samples(folder / "golden.npz", GoldenSamples({"x": x}, {"y": x}))
    manifest = ModelManifest(format_version=FORMAT_VERSION, model_name="flat")
    manifest.files.extend(describe_file(folder / name) for name in ("model.onnx", "golden.npz"))
    manifest.golden_samples.file = "golden.npz"
    manifest.golden_samples.tolerances["CPUExecutionProvider"] = 0.0
    write_manifest(folder, manifest)
    golden = load(tmp_path, "flat").golden
    assert golden is not None
    assert [inputs["x"].shape for inputs, _ in golden.runs] == [(2, 6), (1, 6), (1, 6)]
    assert golden.check(lambda inputs: {"y": inputs["x"]}) == 0.0


def test_an_output_of_another_shape_than_declared_fails_its_request() -> None:
    reshaping = Reshaping(outputs={"y": Reshape(seen=(-1, 6), own=(-1, 2, 3))})
    run = reshaping.run(lambda _: {"y": np.zeros((1, 3, 2))})
    with pytest.raises(InferenceError, match=r"shape \[1, 3, 2\] came; expected \[-1, 2, 3\]"):
        run({})


def test_a_model_without_reshapes_is_run_as_it_is() -> None:
    assert Reshaping().run(dict) is dict


AXES = st.lists(st.integers(1, 3), max_size=4)


@given(AXES, st.integers(0, 4), st.booleans(), st.data())
def test_what_was_reshaped_comes_back(axes: list[int], rows: int, free: bool, data: st.DataObject) -> None:
    own = tuple(data.draw(st.permutations(axes))) + (1,) * data.draw(st.integers(0, 2))
    lead = (-1,) if free else ()
    reshape = Reshape(seen=(*lead, *axes), own=(*lead, *own))
    array = np.arange(np.prod([rows] * free + axes)).reshape([rows] * free + axes)
    there = reshape.to_own(array)
    assert there.shape == ((rows,) if free else ()) + own
    np.testing.assert_array_equal(reshape.to_seen(there), array)
