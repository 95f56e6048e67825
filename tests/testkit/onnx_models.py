"""Tiny ONNX models whose answers can be told in one's head, and repositories that hold them."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from inferry_proto.golden import GoldenSamples, save_golden_samples
from inferry_proto.manifest import FORMAT_VERSION, describe_file, read_manifest, write_manifest
from inferry_proto.manifest_pb2 import Gate, ModelManifest, Preprocessing, Signature, TensorSpec, VariantOf

OPSET = 17
IR_VERSION = 10


def save_model(path: Path, nodes: Sequence[onnx.NodeProto], inputs: Sequence[onnx.ValueInfoProto],
               outputs: Sequence[onnx.ValueInfoProto], constants: Sequence[onnx.TensorProto] = ()) -> None:  # fmt: skip
    """Write a graph as an ONNX file, with the folders above it."""
    graph = helper.make_graph(list(nodes), "tiny", list(inputs), list(outputs), list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def save_doubler(repository: Path, *, name: str = "doubler", version: int = 1) -> None:
    """`y = 2 x`, float32 `[N, 3]`."""
    save_model(
        repository / name / str(version) / "model.onnx",
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )


def save_dense(repository: Path, *, name: str = "dense", version: int = 1, width: int = 1024, layers: int = 1) -> None:
    """`y = x W`, float32 `[N, width]`, with W the unit matrix, so many times: `4 width ** 2` bytes of weights."""
    names = ["x", *(f"layer {i}" for i in range(1, layers)), "y"]
    save_model(
        repository / name / str(version) / "model.onnx",
        [helper.make_node("MatMul", [x, "weights"], [y]) for x, y in itertools.pairwise(names)],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", width])],
        [numpy_helper.from_array(np.eye(width, dtype=np.float32), "weights")],
    )


def save_scalar_adder(repository: Path, *, name: str = "adder") -> None:
    """`sum = a + b`, int64 scalars: a model without batch dimension."""
    save_model(
        repository / name / "1" / "model.onnx",
        [helper.make_node("Add", ["a", "b"], ["sum"])],
        [helper.make_tensor_value_info(n, TensorProto.INT64, []) for n in ("a", "b")],
        [helper.make_tensor_value_info("sum", TensorProto.INT64, [])],
    )


def save_text_echo(repository: Path, *, name: str = "echo") -> None:
    """`out = in`, strings `[N, 2]`."""
    save_model(
        repository / name / "1" / "model.onnx",
        [helper.make_node("Identity", ["in"], ["out"])],
        [helper.make_tensor_value_info("in", TensorProto.STRING, ["N", 2])],
        [helper.make_tensor_value_info("out", TensorProto.STRING, ["N", 2])],
    )


def save_repeater(repository: Path, *, name: str = "repeater") -> None:
    """`y` = the sine of 1, taken `x` times, int64 `[N, 1]`: the largest row says how long it runs."""
    value, one = (helper.make_tensor_value_info(n, TensorProto.FLOAT, []) for n in ("value", "next"))
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["goes"]), helper.make_node("Sin", ["value"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            value,
        ],
        [helper.make_tensor_value_info("goes", TensorProto.BOOL, []), one],
    )
    save_model(
        repository / name / "1" / "model.onnx",
        [
            helper.make_node("ReduceMax", ["x"], ["times"], keepdims=0),
            helper.make_node("Loop", ["times", "true", "one"], ["last"], body=body),
            helper.make_node("CastLike", ["x", "one"], ["as_float"]),
            helper.make_node("Mul", ["as_float", "zero"], ["zeros"]),
            helper.make_node("Add", ["zeros", "last"], ["y"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["N", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        [
            numpy_helper.from_array(np.array(True), "true"),
            numpy_helper.from_array(np.array(1, np.float32), "one"),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
        ],
    )


def save_free_lengths(repository: Path, *, name: str = "free") -> None:
    """`y` = the mean of each picture, float32 `[N, 1, H, W]` to `[N, 1]`: pictures of any size."""
    save_model(
        repository / name / "1" / "model.onnx",
        [helper.make_node("GlobalAveragePool", ["x"], ["mean"]), helper.make_node("Flatten", ["mean"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
    )


def save_negative(repository: Path, *, name: str = "negative", width: int = 3) -> None:
    """`y = -x`, int8 `[N, width]`."""
    save_model(
        repository / name / "1" / "model.onnx",
        [helper.make_node("Neg", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.INT8, ["N", width])],
        [helper.make_tensor_value_info("y", TensorProto.INT8, ["N", width])],
    )


def save_corner(repository: Path, *, name: str = "corner", side: int = 64, channels: int = 3) -> None:
    """`y` = the first pixel of each picture, uint8 `[N, side, side, channels]` to `[N, 1, 1, channels]`."""
    save_model(
        repository / name / "1" / "model.onnx",
        [helper.make_node("Slice", ["x", "start", "stop", "axes"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", side, side, channels])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, ["N", 1, 1, channels])],
        [
            numpy_helper.from_array(np.array(values, np.int64), constant)
            for constant, values in (("start", [0, 0]), ("stop", [1, 1]), ("axes", [1, 2]))
        ],
    )


def save_half_echo(repository: Path, *, name: str, element_type: int) -> None:
    """`out = in`, `[N, 2]` of FP16 or BF16."""
    save_model(
        repository / name / "1" / "model.onnx",
        [helper.make_node("Identity", ["in"], ["out"])],
        [helper.make_tensor_value_info("in", element_type, ["N", 2])],
        [helper.make_tensor_value_info("out", element_type, ["N", 2])],
    )


def save_distinct(repository: Path, *, name: str = "distinct") -> None:
    """`out` = the distinct numbers of `in`, int64 `[N]` and `[M]`: both lengths are free, and no rows."""
    save_model(
        repository / name / "1" / "model.onnx",
        [helper.make_node("Unique", ["in"], ["out"])],
        [helper.make_tensor_value_info("in", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("out", TensorProto.INT64, ["M"])],
    )


def save_two_inputs(repository: Path, *, name: str = "joiner") -> None:
    """`total = left + right` and `difference = left - right`, float32 `[N, 2]` and `[N, 2]`."""
    pair = ["N", 2]
    save_model(
        repository / name / "1" / "model.onnx",
        [
            helper.make_node("Add", ["left", "right"], ["total"]),
            helper.make_node("Sub", ["left", "right"], ["difference"]),
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, pair) for n in ("left", "right")],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, pair) for n in ("total", "difference")],
    )


def save_picky(repository: Path, *, name: str = "picky") -> None:
    """`y = 10 index`, int64 `[N]`, from a table of 4: another index fails the whole run."""
    save_model(
        repository / name / "1" / "model.onnx",
        [
            helper.make_node("Gather", ["table", "index"], ["y"]),
        ],
        [helper.make_tensor_value_info("index", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
        [
            numpy_helper.from_array(np.arange(4, dtype=np.float32) * 10, "table"),
        ],
    )


def save_finder(repository: Path, *, name: str = "finder") -> None:
    """Scores of the pictures that show something, uint8 `[N, 2, 2, 1]` to float32 `[M, 3]`.

    A picture's largest level is 208 (nothing) to 211; it fails on any other, so nothing can be made up for it.
    """
    save_model(
        repository / name / "1" / "model.onnx",
        [
            helper.make_node("Cast", ["pictures"], ["levels"], to=TensorProto.INT64),
            helper.make_node("ReduceMax", ["levels"], ["largest"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Mul", ["thirteen", "sixteen"], ["nothing"]),
            helper.make_node("Sub", ["largest", "nothing"], ["what"]),
            helper.make_node("Gather", ["table", "what"], ["all"]),
            helper.make_node("Cast", ["what"], ["something"], to=TensorProto.BOOL),
            helper.make_node("Compress", ["all", "something"], ["scores"], axis=0),
        ],
        [helper.make_tensor_value_info("pictures", TensorProto.UINT8, ["N", 2, 2, 1])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])],
        [
            numpy_helper.from_array(np.array(13, np.int64), "thirteen"),
            numpy_helper.from_array(np.array(16, np.int64), "sixteen"),
            numpy_helper.from_array(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32), "table"),
        ],
    )


def save_brightness(repository: Path, *, name: str = "brightness", version: int = 1, side: int = 4,
                    manifest: bool = True) -> Path:  # fmt: skip
    """A classifier of grey pictures: `dark` or `bright`, by mean brightness b: `[1 - b, b]`.

    uint8 `[N, side, side, 1]` in, float32 `[N, 2]` out.

    Returns:
        The version's folder.
    """
    folder = repository / name / str(version)
    save_model(
        folder / "model.onnx",
        [
            helper.make_node("Cast", ["images"], ["levels"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["levels", "white"], ["scaled"]),
            helper.make_node("ReduceMean", ["scaled"], ["bright"], axes=[2, 3], keepdims=0),
            helper.make_node("ReduceMean", ["bright"], ["mean"], axes=[1], keepdims=1),
            helper.make_node("Sub", ["one", "mean"], ["dark"]),
            helper.make_node("Concat", ["dark", "mean"], ["probabilities"], axis=1),
        ],
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", side, side, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
        [
            numpy_helper.from_array(np.array(255, np.float32), "white"),
            numpy_helper.from_array(np.array(1, np.float32), "one"),
        ],
    )
    if manifest:
        write_brightness_manifest(folder, name, side)
    return folder


def save_brightness_variant(repository: Path, *, base: str = "brightness", precision: str = "int8",
                            name: str = "", points_lost: float = 0.05, side: int = 4) -> Path:  # fmt: skip
    """A variant of the newest version of a brightness model, which computes the same by another graph.

    Args:
        repository: holds the model.
        base: its name.
        precision: as its manifest states it.
        name: of the variant; empty: as the trainer names it.
        points_lost: as its gates measured them.
        side: of its pictures.

    Returns:
        The version's folder.
    """
    newest = max((repository / base).glob("*/model.onnx"), key=lambda path: int(path.parent.name))
    folder = save_brightness(repository, name=name or f"{base}-{precision}", side=side)
    model = onnx.load(folder / "model.onnx")
    model.doc_string = f"in {precision}"
    onnx.save(model, folder / "model.onnx")
    manifest = read_manifest(folder)
    assert manifest is not None
    manifest.precision = precision
    manifest.variant_of.CopyFrom(VariantOf(model_name=base, model_sha256=describe_file(newest).sha256))
    manifest.gates.add(name="accuracy-drop", outcome=Gate.PASSED, figures={"points": points_lost})
    del manifest.files[:]
    manifest.files.extend(describe_file(folder / file) for file in ("model.onnx", "golden.npz"))
    write_manifest(folder, manifest)
    return folder


def write_brightness_manifest(folder: Path, name: str, side: int) -> None:
    """Describe a brightness model as the trainer would, golden samples included."""
    levels = np.array([0, 51, 255], np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (3, side, side, 1)).copy()
    bright = levels.astype(np.float32) / 255
    outputs = np.stack([1 - bright, bright], axis=1)
    save_golden_samples(folder / "golden.npz", GoldenSamples({"images": images}, {"probabilities": outputs}))
    manifest = ModelManifest(
        format_version=FORMAT_VERSION,
        model_name=name,
        precision="float32",
        labels=["dark", "bright"],
        signature=Signature(
            inputs=[TensorSpec(name="images", datatype="UINT8", shape=[-1, side, side, 1])],
            outputs=[TensorSpec(name="probabilities", datatype="FP32", shape=[-1, 2])],
        ),
        preprocessing=Preprocessing(
            color_mode=Preprocessing.GRAYSCALE, height=side, width=side, filter=Preprocessing.BILINEAR
        ),
        files=[describe_file(folder / file) for file in ("model.onnx", "golden.npz")],
    )
    manifest.golden_samples.file = "golden.npz"
    for provider in ("CPUExecutionProvider", "CUDAExecutionProvider"):
        manifest.golden_samples.tolerances[provider] = 1e-6
    write_manifest(folder, manifest)
