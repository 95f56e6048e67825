"""Networks to time batch jobs with, and pictures for them: untrained, because answers do not change what they cost."""

import gzip
import io
from pathlib import Path

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from inferry_proto.golden import GoldenSamples, save_golden_samples
from inferry_proto.manifest import FORMAT_VERSION, describe_file, write_manifest
from inferry_proto.manifest_pb2 import ModelManifest, Preprocessing, Signature, TensorSpec
from testkit.onnx_models import save_model


def save_convolutions(
    repository: Path, *, name: str, side: int, channels: int, filters: tuple[int, ...], strides: int, scaled: bool
) -> Path:
    """A classifier of ten classes: 3x3 convolutions, mean, a dense layer, softmax; uint8 `[N, side, side, C]` in.

    Returns:
        The version's folder, which server and batch jobs take.
    """
    import onnxruntime as ort

    folder, rng = repository / name / "1", np.random.default_rng(0)
    nodes: list[NodeProto] = [
        helper.make_node("Cast", ["images"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["levels", "white"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    constants = [numpy_helper.from_array(np.array(255, np.float32), "white")]
    wide = channels
    for index, count in enumerate(filters):
        weights = rng.normal(0, (2 / (9 * wide)) ** 0.5, (count, wide, 3, 3)).astype(np.float32)
        constants.append(numpy_helper.from_array(weights, f"w{index}"))
        nodes.append(
            helper.make_node("Conv", [f"x{index}", f"w{index}"], [f"c{index}"], pads=[1] * 4, strides=[strides] * 2)
        )
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"x{index + 1}"]))
        wide = count
    constants.append(numpy_helper.from_array(rng.normal(0, 0.1, (wide, 10)).astype(np.float32), "dense"))
    nodes += [
        helper.make_node("ReduceMean", [f"x{len(filters)}"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "dense"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    save_model(
        folder / "model.onnx",
        nodes,
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", side, side, channels])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10])],
        constants,
    )
    samples = rng.integers(0, 256, (2, side, side, channels), np.uint8)
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {"images": samples})
    save_golden_samples(folder / "golden.npz", GoldenSamples({"images": samples}, {"probabilities": outputs}))
    manifest = ModelManifest(
        format_version=FORMAT_VERSION,
        model_name=name,
        precision="float32",
        labels=[str(index) for index in range(10)],
        signature=Signature(
            inputs=[TensorSpec(name="images", datatype="UINT8", shape=[-1, side, side, channels])],
            outputs=[TensorSpec(name="probabilities", datatype="FP32", shape=[-1, 10])],
        ),
        preprocessing=Preprocessing(
            color_mode=Preprocessing.GRAYSCALE if channels == 1 else Preprocessing.RGB,
            height=side,
            width=side,
            filter=Preprocessing.BILINEAR,
            scaled_jpeg=scaled,
        ),
        files=[describe_file(folder / file) for file in ("model.onnx", "golden.npz")],
    )
    manifest.golden_samples.file = "golden.npz"
    manifest.golden_samples.tolerances["CPUExecutionProvider"] = 1e-4
    write_manifest(folder, manifest)
    return folder


def write_mnist(folder: Path, idx: Path | None, count: int) -> None:
    """Digits as PNG files, of MNIST's training images, or blots of their size where those are not at hand."""
    folder.mkdir(parents=True)
    if idx is not None:
        with gzip.open(idx) as file:
            pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)[:count]
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8)
    for index, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{index:05}.png")


def write_photographs(folder: Path, count: int, *, different: int = 200) -> None:
    """JPEGs of 500 x 375 with a photograph's share of detail (some 50 kB each), 200 different ones again and again."""
    folder.mkdir(parents=True)
    rng, made = np.random.default_rng(0), []
    for _ in range(min(count, different)):
        rough = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(rough, np.int16) + rng.normal(0, 12, (375, 500, 3)).astype(np.int16)
        data = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(data, "JPEG", quality=85)
        made.append(data.getvalue())
    for index in range(count):
        (folder / f"{index:05}.jpg").write_bytes(made[index % len(made)])
