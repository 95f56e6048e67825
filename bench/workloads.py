"""What is measured: the contenders, and the steps of one round."""

import io
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from bench.contenders import INPUT, MODEL, SHAPE, Contender, Running
from bench.installed import Installed
from bench.load_generator import Job
from bench.measure import by_common_client, by_locust, by_perf_analyzer
from bench.samples import BareCosts, Sample
from inferry_proto.classifier_pb2 import ClassifyRequest
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_proto.services import IMAGE_CLASSIFIER, OPEN_INFERENCE

INFERRY, INT8, UNBATCHED = "Inferry", "Inferry, int8", "Inferry, no batching"
BEFORE, BEFORE_INT8 = "Inferry, before", "Inferry, before, int8"
TRITON, MOSEC, MLSERVER = "Triton", "Mosec", "MLServer"
OBJECTIVE, TRITON_TIMEOUT, SCRIPTED = "Inferry, objective", "Triton, queue timeout", "Inferry, scripted device"
BARE, BARE_INT8 = "ONNX Runtime", "ONNX Runtime, int8"
PEERS = {"triton": TRITON, "mosec": MOSEC, "mlserver": MLSERVER}

CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BATCH, BATCH_CONCURRENCY, OBJECTIVE_MS = 32, 4, 100.0
_CLOSE = 2  # times a round, for what is judged to within a few hundredths
DEVICE_A_MS, DEVICE_B_MS = 5.0, 1.0  # 37 ms for a full batch: two of them fit into the objective


@dataclass(frozen=True)
class Step:
    """One measurement of a round."""

    workload: str
    contender: str
    run: Callable[[Running, BareCosts], Sample]


def single(tool: str, concurrency: int) -> str:
    """The name of a workload of single images; `tool` is `perf_analyzer` or `common client`."""
    return f"{tool}, 1 image, {concurrency} at a time"


BATCHES = f"perf_analyzer, {BATCH} images, {BATCH_CONCURRENCY} at a time"
STREAM = "perf_analyzer, stream, 32 at a time"
BESIDE_BARE = {
    (single("perf_analyzer", 1), INFERRY), (single("perf_analyzer", 1), BEFORE),
    (single("perf_analyzer", 1), UNBATCHED),
    (single("perf_analyzer", 32), INFERRY), (single("perf_analyzer", 32), BEFORE),
    (STREAM, INFERRY), (STREAM, BEFORE), (BATCHES, INFERRY), (BATCHES, BEFORE), (BATCHES, INT8), (BATCHES, BEFORE_INT8),
}  # fmt: skip
"""What is compared with the bare session measured just before it, or with what is: it follows the same load."""

BARE_OF = {INT8: BARE_INT8, BEFORE_INT8: BARE_INT8}
"""With which bare session a contender is compared, by its name; others with BARE."""
PICTURES = "common client, a JPEG, 32 at a time"
LOCUST = "inferry load (Locust), 32 users"


def contenders(
    folder: Path,
    *,
    threads: int,
    inferry_flags: tuple[str, ...],
    without: Iterable[str],
    before: Path | None = None,
    installed: Installed | None = None,
) -> dict[str, Contender]:
    """Every server that is started, by name.

    Args:
        folder: of `float32.onnx` and `int8.onnx`, and for the scripted device's counts.
        threads: that compute a batch.
        inferry_flags: given to every Inferry.
        without: keys of PEERS to leave out.
        before: another checkout of Inferry, set up, to compare this one with; None: none.
        installed: what runs as Inferry, but with the scripted device; None: this checkout.
    """
    model, objective = folder / "float32.onnx", ("--latency-objective-ms", f"{OBJECTIVE_MS:g}")
    counts = folder / "scripted.counts"
    np.zeros(3, np.int64).tofile(counts)
    # By its path, which is found from the server's folder as well.
    device = str(Path(__file__).with_name("scripted_device.py"))
    # It stands for a GPU: it computes one batch at a time, and never on the thread that reads requests.
    one_device = (*inferry_flags, *objective, "--no-parallel-runs", "--inline-batch-ms", "0")
    scripted = (sys.executable, device, str(counts), str(DEVICE_A_MS), str(DEVICE_B_MS))
    half_us = round(OBJECTIVE_MS * 1e3 / 2)  # what waits longer than half the objective comes too late
    timeout = f"default_queue_policy {{ timeout_action: REJECT default_timeout_microseconds: {half_us} }}"
    variables = {} if installed is None else installed.environment
    ours = [
        Contender(INFERRY, "inferry", model, threads, inferry_flags),
        Contender(INT8, "inferry", folder / "int8.onnx", threads, inferry_flags),
        Contender(UNBATCHED, "inferry", model, threads, (*inferry_flags, "--max-batch-size", "1")),
        Contender(OBJECTIVE, "inferry", model, threads, (*inferry_flags, *objective)),
    ]
    chosen = [
        *(replace(one, environment=variables) for one in ours),
        Contender(SCRIPTED, "inferry", model, threads, one_device, program=scripted),
        Contender(TRITON, "triton", model, threads),
        Contender(TRITON_TIMEOUT, "triton", model, threads, (timeout,)),
        Contender(MOSEC, "mosec", model, threads),
        Contender(MLSERVER, "mlserver", model, threads),
    ]
    if before is not None:
        program = (str(before / ".venv" / "bin" / "python"), "-m", "inferry_server")
        chosen += [
            Contender(BEFORE, "inferry", model, threads, inferry_flags, program=program),
            Contender(BEFORE_INT8, "inferry", folder / "int8.onnx", threads, inferry_flags, program=program),
        ]
    return {each.name: each for each in chosen if each.kind not in set(without)}


def steps(
    requests: dict[str, Path], *, concurrencies: Iterable[int], seconds: float, window_s: float, locust_s: int
) -> list[Step]:
    """The steps of a round, contender after contender within each workload.

    Args:
        requests: from `write_requests`.
        concurrencies: of single images.
        seconds: the common client sends.
        window_s: of perf_analyzer, which takes three or more.
        locust_s: Locust sends.
    """

    def common(workload: str, contender: str, request: str, path: str, concurrency: int) -> Step:
        http = contender == MOSEC
        body = str(requests["pixels" if http else request])
        return Step(
            workload,
            contender,
            lambda server, costs: by_common_client(
                server, costs, Job(server.port, "/inference" if http else path, body, seconds, concurrency, http=http)
            ),
        )

    def analyzed(workload: str, contender: str, concurrency: int, rows: int = 1, *, streaming: bool = False) -> Step:
        return Step(
            workload,
            contender,
            lambda server, costs: by_perf_analyzer(
                server, costs, concurrency=concurrency, rows=rows, streaming=streaming, window_s=window_s
            ),
        )

    infer = OPEN_INFERENCE["ModelInfer"].path
    plan: list[Step] = []
    for concurrency in concurrencies:
        tool, client = single("perf_analyzer", concurrency), single("common client", concurrency)
        names = (INFERRY, BEFORE, UNBATCHED, TRITON, *((INT8, BEFORE_INT8) if concurrency == 32 else ()))
        plan += [analyzed(tool, name, concurrency) for name in names] * (_CLOSE if concurrency in (1, 32) else 1)
        plan += [
            common(client, name, "single", infer, concurrency) for name in (INFERRY, BEFORE, TRITON, MOSEC, MLSERVER)
        ]
    whole = (INFERRY, BEFORE, INT8, BEFORE_INT8, TRITON)
    plan += [analyzed(BATCHES, name, BATCH_CONCURRENCY, BATCH) for name in whole] * _CLOSE
    plan += [analyzed(STREAM, name, 32, streaming=True) for name in (INFERRY, BEFORE)] * _CLOSE
    classify = IMAGE_CLASSIFIER["Classify"].path
    plan += [common(PICTURES, name, "picture", classify, 32) for name in (INFERRY, BEFORE)]
    plan.append(Step(LOCUST, INFERRY, lambda server, costs: by_locust(server, costs, users=32, seconds=locust_s)))
    return plan


def write_requests(folder: Path) -> dict[str, Path]:
    """The bytes that the common client sends, as files: `single`, `blank` (to be stamped), `pixels`, `picture`."""
    pixels = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    jpeg = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(jpeg, "JPEG")
    classify = ClassifyRequest(model_name=MODEL)
    classify.images.add(encoded=jpeg.getvalue())
    written = {
        "single": infer_request(pixels.tobytes()),
        "blank": infer_request(bytes(pixels.size)),
        "pixels": pixels.tobytes(),
        "picture": classify.SerializeToString(),
    }
    for name, body in written.items():
        (folder / f"{name}.request").write_bytes(body)
    return {name: folder / f"{name}.request" for name in written}


def infer_request(pixels: bytes) -> bytes:
    """ModelInfer for one image; the pixels are its last bytes."""
    message = ModelInferRequest(model_name=MODEL, raw_input_contents=[pixels])
    message.inputs.add(name=INPUT, datatype="UINT8", shape=(1, *SHAPE))
    serialized = message.SerializeToString()
    if not serialized.endswith(pixels):
        raise ValueError("the pixels are not the last bytes of the request; expected them there, to be stamped")
    return serialized
