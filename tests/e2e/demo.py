"""`make demo`: the whole way from pixels to a served answer, on real digits.

Trains, exports, verifies, publishes, serves, classifies every held-out image over gRPC, load-tests,
and prints what it measured. Everything it does, it does through the three programs a user has; it
leaves all of it in runs/demo/ and the figures in runs/demo/summary.json.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from inferry_client import Client
from inferry_proto.preprocessing import UInt8Array
from inferry_trainer.quiet import import_tensorflow_quietly

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
EPOCHS = {"mnist": 2, "fashion-mnist": 2}  # a full training takes 20; digits is small enough for all of them
USERS, DURATION = 32, "5s"
LARGEST_DIFFERENCE = 1e-5
LEAST_ACCURACY = {"digits": 0.97, "mnist": 0.97, "fashion-mnist": 0.85}
STOP_TIMEOUT_S = 60
LIVE_PAGE = "http://127.0.0.1:8002/"

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Summary:
    """What the demo measured; the names are the keys of summary.json."""

    keras_accuracy: float
    served_accuracy: float
    label_agreement: float
    max_abs_difference: float
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    failures: int

    def faults(self, dataset: str) -> list[str]:
        """What must hold and does not."""
        least = LEAST_ACCURACY[dataset]
        expectations = {
            f"served_accuracy is at least {least}": self.served_accuracy >= least,
            "served_accuracy equals keras_accuracy": self.served_accuracy == self.keras_accuracy,
            "label_agreement is 1": self.label_agreement == 1,
            f"max_abs_difference is at most {LARGEST_DIFFERENCE}": self.max_abs_difference <= LARGEST_DIFFERENCE,
            "failures is 0": self.failures == 0,
        }
        return [expectation for expectation, holds in expectations.items() if not holds]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", default="digits", choices=["digits", "mnist", "fashion-mnist"])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "demo")
    parser.add_argument("--keep", action="store_true", help="serve on, until Ctrl-C")
    arguments = parser.parse_args()
    try:
        status = run_demo(arguments.dataset, arguments.out)
        return keep_serving(arguments.out / "models") if arguments.keep and status == 0 else status
    except subprocess.CalledProcessError as error:
        print(f"demo: error: `{' '.join(map(str, error.cmd))}` ended with status {error.returncode}", file=sys.stderr)
        return 1


def run_demo(dataset: str, out: Path) -> int:
    """The demo in `out`, which is emptied first; 0 if everything that must hold does."""
    started = time.monotonic()
    if not remove_earlier_demo(out):
        print(f"demo: error: {out} holds something else than an earlier demo; name another --out", file=sys.stderr)
        return 1
    step("Train", f"the chapter's network on {dataset}")
    epochs = ["--epochs", str(EPOCHS[dataset])] if dataset in EPOCHS else []
    call("inferry-train", "run", dataset, "--out", out, *epochs)
    step("Export", "to ONNX; compare it with Keras on the whole test set; publish it")
    call("inferry-train", "export", out, "--repository", out / "models")
    images, labels = load_heldout(out)
    step("Serve", "the model repository over gRPC")
    with serving(out / "models") as address:
        Image.fromarray(images[0].squeeze()).save(out / "digit.png")
        step("Classify", f"a picture, then all {len(images)} held-out images, one a request")
        call("inferry", "classify", out / "digit.png", "--model", dataset, "--server", address)
        served = ask_served(address, dataset, images)
        step("Load-test", f"{USERS} users for {DURATION}")
        call(
            "inferry", "load", "--model", dataset, "--server", address, "--users", USERS, "--duration", DURATION,
            "--html", out / "load.html", "--json", out / "load.json",
        )  # fmt: skip
    summary = summarize(ask_keras(out, images), served, labels, json.loads((out / "load.json").read_text()))
    (out / "summary.json").write_text(json.dumps(asdict(summary), indent=2) + "\n")
    report(summary, out, len(images), time.monotonic() - started)
    faults = summary.faults(dataset)
    for fault in faults:
        print(f"demo: error: expected that {fault}", file=sys.stderr)
    return 1 if faults else 0


def remove_earlier_demo(out: Path) -> bool:
    """Make room; nothing is removed that a demo has not left."""
    if out.exists() and any(out.iterdir()) and not (out / "config.json").is_file():
        return False
    shutil.rmtree(out, ignore_errors=True)
    return True


def step(name: str, what: str) -> None:
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}== {name}{plain}: {what}", flush=True)


def call(program: str, *arguments: object) -> None:
    subprocess.run([BIN / program, *map(str, arguments)], check=True)


def load_heldout(out: Path) -> tuple[UInt8Array, NDArray[np.int64]]:
    with np.load(out / "heldout.npz") as file:
        return file["images"], file["labels"]


@contextmanager
def serving(repository: Path) -> Iterator[str]:
    """A server on a free port; its gRPC address."""
    command = [BIN / "inferry-serve", "--repository", repository, "--log-level", "warning"]
    command += ["--grpc-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise subprocess.CalledProcessError(process.wait(), process.args)
            print(line, end="", flush=True)
            yield line.split("gRPC ")[1].split(",")[0]
        finally:
            process.terminate()
            status = process.wait(STOP_TIMEOUT_S)
    if status != 0:
        raise subprocess.CalledProcessError(status, process.args)


def ask_served(address: str, model: str, images: UInt8Array) -> Float32Array:
    """Probabilities `(N, K)` from the server, a request an image, in the order of the images."""
    with Client(address) as client, ThreadPoolExecutor(USERS) as pool:
        answers = pool.map(lambda image: client.infer(model, {"images": image[None]}).outputs["probabilities"], images)
        progress = tqdm(answers, total=len(images), unit="image", disable=None, leave=False)
        return np.concatenate(list(progress))


def ask_keras(out: Path, images: UInt8Array) -> Float32Array:
    """Probabilities `(N, K)` from the Keras model that was exported."""
    import_tensorflow_quietly(verbose=False)
    import keras

    model = keras.saving.load_model(out / "model.keras")
    predicted: Float32Array = model.predict(images.astype(np.float32) / 255, batch_size=256, verbose=0)
    return predicted


def summarize(
    keras_answers: Float32Array, served: Float32Array, labels: NDArray[np.int64], load: dict[str, float]
) -> Summary:
    keras_labels, served_labels = keras_answers.argmax(axis=1), served.argmax(axis=1)
    return Summary(
        keras_accuracy=float((keras_labels == labels).mean()),
        served_accuracy=float((served_labels == labels).mean()),
        label_agreement=float((keras_labels == served_labels).mean()),
        max_abs_difference=float(np.abs(keras_answers - served).max()),
        requests_per_second=load["requests_per_second"],
        p50_ms=load["p50_ms"],
        p99_ms=load["p99_ms"],
        failures=int(load["failures"]),
    )


def report(summary: Summary, out: Path, images: int, wall_s: float) -> None:
    step("Measured", f"on {images} held-out images, in {wall_s:.0f} s altogether")
    rows = {
        "accuracy, Keras": f"{summary.keras_accuracy:.2%}",
        "accuracy, served": f"{summary.served_accuracy:.2%}",
        "equal labels": f"{summary.label_agreement:.2%}",
        "largest difference": f"{summary.max_abs_difference:.1e}",
        "requests/s": f"{summary.requests_per_second:,.0f}",
        "latency p50 / p99": f"{summary.p50_ms:.1f} / {summary.p99_ms:.1f} ms",
        "failed requests": f"{summary.failures}",
    }
    for name, value in rows.items():
        print(f"  {name:<20}{value:>16}")
    print(f"\nTraining report: {out / 'report.html'}\nLoad report:     {out / 'load.html'}")
    print(f"Serve it again:  {BIN / 'inferry-serve'} --repository {out / 'models'}")
    print(f"and meanwhile:   {BIN / 'inferry'} classify {out / 'digit.png'}")
    print(f"or draw a digit: {LIVE_PAGE}")


def keep_serving(repository: Path) -> int:
    """A server on the usual ports, until it is interrupted."""
    step("Serve", f"until Ctrl-C; draw a digit at {LIVE_PAGE}")
    with subprocess.Popen([BIN / "inferry-serve", "--repository", repository]) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the server got it too, and ends in order
                continue


if __name__ == "__main__":
    sys.exit(main())
