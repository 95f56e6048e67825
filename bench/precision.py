"""What an export is worth in time: our graph against plain tf2onnx's, and int8 and float16 against float32.

Bare `session.run` at batches of 32, uint8 pixels, on every core. Rounds alternate between the graphs, and
medians of each round's ratios are printed, because machines are noisy. Weights are untrained: what a network
answers does not change what it costs. Figures go to runs/bench/precision.json too.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from inferry_proto.preprocessing import UInt8Array
from inferry_trainer.quiet import import_tensorflow_quietly

ROOT = Path(__file__).parents[1]
BATCH = 32
NETWORKS = {"mnist-cnn": ((28, 28, 1), 10), "celeba-cnn": ((64, 64, 3), 2)}
PLAIN = "plain tf2onnx"
RATIOS = {
    "float32 / plain tf2onnx": ("float32", PLAIN),
    "int8 / float32": ("int8", "float32"),
    "float16 / float32": ("float16", "float32"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each graph in each round")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench")
    arguments = parser.parse_args()
    import_tensorflow_quietly(verbose=False)
    report: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "batch": BATCH, "networks": {}}
    for network, (shape, classes) in NETWORKS.items():
        images = np.random.default_rng(0).integers(0, 256, (256, *shape), np.uint8)
        with tempfile.TemporaryDirectory() as folder:
            graphs = export_graphs(network, shape, classes, images, Path(folder))
            rounds = measure(network, graphs, images[:BATCH], arguments.rounds, arguments.seconds)
        report["networks"][network] = summarize(rounds)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "precision.json").write_text(json.dumps(report, indent=2) + "\n")
    print_report(report)
    return 0


def export_graphs(
    network: str, shape: tuple[int, int, int], classes: int, images: UInt8Array, folder: Path
) -> dict[str, Path]:
    import onnx

    from inferry_trainer.evaluation.classifier import make_classifier
    from inferry_trainer.export.convert import export_classifier
    from inferry_trainer.export.half_precision import to_float16
    from inferry_trainer.export.quantize import quantize_int8
    from inferry_trainer.models import build_network

    classifier = make_classifier(build_network(network, shape, classes=classes))
    graphs = {name: folder / f"{index}.onnx" for index, name in enumerate((PLAIN, "float32", "float16", "int8"))}
    export_plainly(classifier.model, shape, graphs[PLAIN])
    export_classifier(classifier, graphs["float32"])
    graphs["float16"].write_bytes(to_float16(onnx.load(graphs["float32"])).SerializeToString())
    graphs["int8"].write_bytes(quantize_int8(graphs["float32"], images).model.SerializeToString())
    return graphs


def export_plainly(model: Any, shape: tuple[int, int, int], path: Path) -> None:
    """What anybody gets from tf2onnx, with the scaling of pixels in the graph, as ours has it."""
    import tensorflow as tf
    import tf2onnx

    @tf.function(input_signature=[tf.TensorSpec((None, *shape), tf.uint8, name="images")])  # type: ignore[untyped-decorator]
    def infer(images: Any) -> Any:
        return model(tf.cast(images, tf.float32) / 255.0, training=False)

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    graph, _ = tf2onnx.convert.from_function(infer, input_signature=infer.input_signature, opset=17)
    path.write_bytes(graph.SerializeToString())


def measure(
    network: str, graphs: dict[str, Path], images: UInt8Array, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Images a second of each graph in each round."""
    runs = {name: open_session(path) for name, path in graphs.items()}
    for run in runs.values():
        run(images)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in tqdm(range(rounds), desc=network, unit="round", disable=None, leave=False):
        for name, run in runs.items():
            rates[name].append(images_per_s(run, images, seconds))
    return rates


def open_session(path: Path) -> Callable[[UInt8Array], object]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})


def images_per_s(run: Callable[[UInt8Array], object], images: UInt8Array, seconds: float) -> float:
    """From the median batch, so that a busy moment of the machine does not count."""
    times = []
    until = time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        run(images)
        times.append(time.perf_counter() - started)
    return len(images) / statistics.median(times)


def summarize(rates: dict[str, list[float]]) -> dict[str, Any]:
    return {
        "images_per_s": {name: statistics.median(values) for name, values in rates.items()},
        "ratios": {
            name: statistics.median(a / b for a, b in zip(rates[above], rates[below], strict=True))
            for name, (above, below) in RATIOS.items()
        },
    }


def print_report(report: dict[str, Any]) -> None:
    print(f"\nexported graphs, bare session, batches of {BATCH}, uint8 pixels, {report['cores']} cores\n")
    names = (PLAIN, "float32", "float16", "int8")
    print(f"{'images/s':<16}" + "".join(f"{name:>15}" for name in names) + "".join(f"{name:>26}" for name in RATIOS))
    for network, figures in report["networks"].items():
        rates = "".join(f"{figures['images_per_s'][name]:>15,.0f}" for name in names)
        print(f"{network:<16}{rates}" + "".join(f"{figures['ratios'][name]:>26.2f}" for name in RATIOS))


if __name__ == "__main__":
    sys.exit(main())
