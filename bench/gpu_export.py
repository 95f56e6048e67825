"""`python -m bench.gpu_export DIR`: the repository that `bench.gpu_check` takes to a GPU machine.

The chapter's networks for MNIST and CelebA, untrained, with weights shaken until outputs differ from
image to image. Each as three models: `uint8` (pixels in, float32 inside), `float32` (pixels as float32),
`float16` (uint8 pixels in, float16 inside). And ResNet-50 in float16, whose weights are not carried but
written where they are needed (`bench.gpu_weights`). Golden outputs are those of ONNX Runtime on this CPU.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from bench.gpu_weights import RECIPE, WEIGHTS
from inferry_proto.golden import GoldenSamples, save_golden_samples
from inferry_proto.manifest import FORMAT_VERSION, describe_file, write_manifest
from inferry_proto.manifest_pb2 import ModelManifest, Preprocessing
from inferry_server.runtime.providers import CPU
from inferry_server.runtime.session import load_session
from inferry_server.signature import signature_to_manifest
from inferry_trainer.export.half_precision import to_float16
from inferry_trainer.gates.golden import golden_tolerances
from inferry_trainer.quiet import import_tensorflow_quietly

NETWORKS = {"mnist": ("mnist-cnn", (28, 28, 1), 10), "celeba": ("celeba-cnn", (64, 64, 3), 2)}
VARIANTS = ("uint8", "float32", "float16")
_GOLDEN_IMAGES = 8
_LOGITS_RANGE = 20.0  # over some images, of 1,000 classes: until some are probable
_LARGE = 10_000  # numbers; smaller tensors stay in the graph


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gpu_export", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="becomes a model repository")
    folder = parser.parse_args(arguments).folder
    import_tensorflow_quietly(verbose=False)
    for dataset, (network, shape, classes) in NETWORKS.items():
        export_network(folder, dataset, network, shape, classes)
    export_resnet(folder / "resnet50-float16" / "1")
    print(f"wrote {', '.join(f'{d}-{v}' for d in NETWORKS for v in VARIANTS)} to {folder}")
    return 0


def export_network(folder: Path, dataset: str, network: str, shape: tuple[int, int, int], classes: int) -> None:
    from inferry_trainer.export.convert import export_onnx
    from inferry_trainer.models import build_network

    model = build_network(network, shape, classes=classes)
    shake(model)
    graphs = {variant: folder / f"{dataset}-{variant}" / "1" / "model.onnx" for variant in VARIANTS}
    for path in graphs.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(model, graphs["uint8"])
    exported = onnx.load(graphs["uint8"])
    onnx.save(to_float16(exported), graphs["float16"])
    exported.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT  # the cast behind it now casts nothing
    onnx.save(exported, graphs["float32"])
    for variant, path in graphs.items():
        write_golden(path, precision="float16" if variant == "float16" else "float32")


def export_resnet(folder: Path) -> None:
    """The largest network: its graph, and a recipe for the weights of its convolutions."""
    import keras

    from inferry_trainer.export.convert import export_onnx

    folder.mkdir(parents=True, exist_ok=True)
    network = keras.applications.ResNet50(weights=None)
    decide(network)
    export_onnx(network, folder / "model.onnx")
    model = to_float16(onnx.load(folder / "model.onnx"))
    recipe: list[tuple[int, str, float]] = []
    offset = 0
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.size < _LARGE:
            continue
        recipe.append((weights.size, weights.dtype.name, float(np.std(weights.astype(np.float32)))))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", WEIGHTS), ("offset", offset), ("length", weights.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        offset += weights.nbytes
    (folder / RECIPE).write_text(json.dumps(recipe))
    onnx.save(model, folder / "model.onnx")


def decide(network: Any) -> None:
    """Scale the last layer until answers differ from image to image by more than a tolerance."""
    images = np.random.default_rng(0).random((8, 1, 1, 1), np.float32) * np.ones(
        (8, *network.input_shape[1:]), np.float32
    )
    kernel, bias = network.layers[-1].get_weights()
    features = type(network)(network.inputs, network.layers[-2].output).predict(images, verbose=0)
    network.layers[-1].set_weights([kernel * (_LOGITS_RANGE / np.ptp(features @ kernel, axis=0).mean()), bias])


def shake(model: Any) -> None:
    """Weights that are not what an initializer makes of them: outputs then depend on the image."""
    random = np.random.default_rng(0)
    model.set_weights([w + 0.05 * random.standard_normal(w.shape).astype(w.dtype) for w in model.get_weights()])


def write_golden(path: Path, *, precision: str) -> None:
    """Record what this CPU answers, and how far another device may be from it."""
    session = load_session(path, providers=(CPU,), intra_op_num_threads=1)
    (spec,) = session.signature.inputs
    images = np.random.default_rng(1).integers(0, 256, (_GOLDEN_IMAGES, *spec.shape[1:]), np.uint8)
    inputs = {spec.name: images.astype(spec.datatype.dtype)}
    save_golden_samples(path.parent / "golden.npz", GoldenSamples(inputs, session.run(inputs)))
    manifest = ModelManifest(
        format_version=FORMAT_VERSION,
        model_name=path.parent.parent.name,
        precision=precision,
        signature=signature_to_manifest(session.signature),
        files=[describe_file(path), describe_file(path.parent / "golden.npz")],
    )
    if path.parent.parent.name.endswith("uint8"):  # the one that pictures are sent to
        _, height, width, channels = spec.shape
        manifest.preprocessing.CopyFrom(
            Preprocessing(
                color_mode=Preprocessing.RGB if channels == 3 else Preprocessing.GRAYSCALE,
                height=height,
                width=width,
                filter=Preprocessing.BILINEAR,
            )
        )
    manifest.golden_samples.file = "golden.npz"
    for provider, tolerance in golden_tolerances(precision, 0.0).items():
        manifest.golden_samples.tolerances[provider] = tolerance
    write_manifest(path.parent, manifest)


if __name__ == "__main__":
    sys.exit(main())
