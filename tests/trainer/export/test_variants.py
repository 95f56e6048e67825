"""float16 and int8 variants: what their graphs are, how they were made, and what their manifests say."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from inferry_proto.manifest import describe_file, read_manifest
from inferry_proto.manifest_pb2 import Gate, ModelManifest, VariantOf
from inferry_trainer.errors import ExportError, PublishError, TrainerError
from inferry_trainer.export.candidate import Candidate
from inferry_trainer.export.half_precision import to_float16
from inferry_trainer.export.onnx_model import load_onnx_model
from inferry_trainer.export.quantize import quantize_int8
from inferry_trainer.workflow.export import ExportOptions, publish_candidate

GATES = [
    "checker", "signature", "varied-outputs", "parity", "third-opinion", "recorded-figures", "labels", "above-chance",
    "accuracy-drop", "scaled-jpeg", "batch-consistency", "golden", "latency",
]  # fmt: skip


def manifest_of(models: Path, name: str) -> ModelManifest:
    manifest = read_manifest(models / name / "1")
    assert manifest is not None
    return manifest


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_each_precision_is_a_model_of_its_own_with_every_gate_recorded(tinted_models: Path, precision: str) -> None:
    name = "tinted" if precision == "float32" else f"tinted-{precision}"
    manifest = manifest_of(tinted_models, name)
    assert (manifest.model_name, manifest.precision) == (name, precision)
    assert [gate.name for gate in manifest.gates] == GATES
    graph = describe_file(tinted_models / "tinted" / "1" / "model.onnx").sha256
    made_of = VariantOf() if precision == "float32" else VariantOf(model_name="tinted", model_sha256=graph)
    assert manifest.variant_of == made_of
    skipped = {gate.name for gate in manifest.gates if gate.outcome != Gate.PASSED}
    assert skipped == {"recorded-figures", "scaled-jpeg"} | ({"accuracy-drop"} if precision == "float32" else set())
    opinion = next(gate for gate in manifest.gates if gate.name == "third-opinion")
    assert opinion.figures["images"] >= 64
    assert 0 < opinion.figures["keras_max_abs_difference"] <= opinion.figures["keras_max_abs_difference_limit"]
    assert manifest.evaluation.metrics["test_accuracy"] > 0.9
    assert sum(one.images for one in manifest.evaluation.classes) == 360
    assert sum(one.correct for one in manifest.evaluation.classes) == round(
        360 * manifest.evaluation.metrics["test_accuracy"]
    )
    assert manifest.latency.per_image_ms > 0
    assert [point.batch_size for point in manifest.latency.points] == [1, 2, 4, 8, 16, 32]


@pytest.mark.parametrize(("name", "share"), [("tinted-float16", 0.55), ("tinted-int8", 0.6)])
def test_reduced_precision_makes_the_file_smaller(tinted_models: Path, name: str, share: float) -> None:
    full = (tinted_models / "tinted" / "1" / "model.onnx").stat().st_size
    assert (tinted_models / name / "1" / "model.onnx").stat().st_size < share * full


def test_the_float16_graph_computes_in_float16_but_for_the_last_softmax(tinted_models: Path) -> None:
    graph = onnx.load(tinted_models / "tinted-float16" / "1" / "model.onnx").graph
    floats = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    assert not floats
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    last = graph.node[-1]
    [cast] = [node for node in graph.node if node.output[0] == last.input[0]]
    assert (last.op_type, cast.op_type, cast.attribute[0].i) == ("Softmax", "Cast", TensorProto.FLOAT)


def test_the_int8_graph_has_a_scale_for_each_channel_and_seven_bits(tinted_models: Path) -> None:
    graph = onnx.load(tinted_models / "tinted-int8" / "1" / "model.onnx").graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kernels = [array for array in tensors.values() if array.dtype == np.int8 and array.ndim in (2, 4)]
    assert sorted(kernel.shape for kernel in kernels) == [(16, 3, 3, 3), (32, 16, 3, 3), (288, 10)]
    assert max(np.abs(kernel.astype(int)).max() for kernel in kernels) <= 64
    scales = {array.shape for name, array in tensors.items() if name.endswith("_scale")}
    assert {(16,), (32,), (10,)} <= scales
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds["Conv"] == 2
    assert kinds["QuantizeLinear"] >= 4


@pytest.mark.parametrize("name", ["tinted", "tinted-float16", "tinted-int8"])
def test_each_graph_says_how_its_pictures_are_stored(tinted_models: Path, name: str) -> None:
    model = onnx.load(tinted_models / name / "1" / "model.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props if entry.key.startswith("Image.")} == {
        "Image.BitmapPixelFormat": "Rgb8",
        "Image.ColorSpaceGamma": "SRGB",
        "Image.NominalPixelRange": "NominalRange_0_255",
    }
    image = model.graph.input[0].type
    assert image.denotation == "IMAGE"
    axes = [axis.denotation for axis in image.tensor_type.shape.dim]
    assert axes == ["DATA_BATCH", "DATA_FEATURE", "DATA_FEATURE", "DATA_CHANNEL"]


def test_the_manifest_says_how_int8_was_calibrated(tinted_models: Path) -> None:
    quantization = manifest_of(tinted_models, "tinted-int8").quantization
    assert quantization.calibration_method in ("minmax", "percentile", "entropy")
    assert quantization.calibration_images == 256
    assert len(quantization.calibration_sha256) == 64
    assert not manifest_of(tinted_models, "tinted").HasField("quantization")


def test_golden_samples_of_a_variant_are_keras_answers(tinted_models: Path, tinted: Candidate) -> None:
    for name in ("tinted-float16", "tinted-int8"):
        with np.load(tinted_models / name / "1" / "golden.npz") as file:
            images, outputs = file["inputs/images"], file["outputs/probabilities"]
        assert np.abs(tinted.classifier.predict(images) - outputs).max() < 1e-6
        served = load_onnx_model(tinted_models / name / "1" / "model.onnx").run(images)
        tolerance = manifest_of(tinted_models, name).golden_samples.tolerances["CPUExecutionProvider"]
        assert 0 < np.abs(served - outputs).max() <= tolerance / 2


@pytest.mark.parametrize(("given", "used"), [(32, 32), (63, 32), (110, 32), (128, 64)])
def test_any_number_of_training_images_calibrates(
    tinted: Candidate, tinted_models: Path, given: int, used: int
) -> None:
    assert tinted.calibration is not None
    images = np.concatenate([tinted.calibration] * 4)[:given]
    quantized = quantize_int8(tinted_models / "tinted" / "1" / "model.onnx", images)
    assert quantized.quantization.calibration_images == used


def test_int8_without_enough_training_images_is_refused(tinted: Candidate, tinted_models: Path, tmp_path: Path) -> None:
    assert tinted.calibration is not None
    with pytest.raises(ExportError, match="at least 32 training images to calibrate with; 31 came"):
        quantize_int8(tinted_models / "tinted" / "1" / "model.onnx", tinted.calibration[:31])


def test_weights_that_float16_cannot_hold_are_refused(tinted_models: Path) -> None:
    model = onnx.load(tinted_models / "tinted" / "1" / "model.onnx")
    tensor = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [10])
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(10, 1e5, np.float32), tensor.name))
    with pytest.raises(ExportError, match=r"reach 1e\+05; float16 ends at 65504"):
        to_float16(model)


def test_a_refused_variant_keeps_no_other_from_being_published(tinted: Candidate, tmp_path: Path) -> None:
    from dataclasses import replace

    without = replace(tinted, calibration=None)
    options = ExportOptions(tmp_path, precisions=("float32", "int8", "float16"))
    with pytest.raises(TrainerError, match="tinted-int8 was not published: int8 needs training images"):
        publish_candidate(without, options, say=lambda _: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tinted", "tinted-float16"]


@pytest.mark.parametrize("label", ["3", "Canary", "", "a b"])
def test_what_cannot_be_a_label_is_refused_before_any_work(label: str, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="cannot be a label; expected"):
        ExportOptions(tmp_path, label=label)
