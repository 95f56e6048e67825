"""Version changes under load: memory afterwards is what it was after the first twenty.

A swap publishes a version, moves the label `stable`, loads, removes the version that nobody needs any
more, and unloads and loads another model. Each version has 4 MiB of weights: one that stayed behind
would show at once.
"""

import shutil
import statistics
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tqdm import tqdm
from tritonclient.utils import InferenceServerException

from inferry_proto.version_labels import write_version_labels
from testkit import onnx_models

WIDTH = 1024  # 4 MiB of weights
FIRST_SWAPS = 20
MOST_GROWTH_MIB = 16.0  # what one version takes while it loads (file, graph, weights, packed weights)
_LAST_SWAPS = 10
_CALLERS = 3


def save_first_versions(repository: Path) -> None:
    """What is there before the first swap."""
    for version in (1, 2):
        onnx_models.save_dense(repository, version=version, width=WIDTH)
    write_version_labels(repository / "dense", {"stable": 1})
    onnx_models.save_dense(repository, name="visitor", width=WIDTH)


def swap_versions(repository: Path, address: str, resident_mib: Callable[[], float], swaps: int) -> dict[str, object]:
    """Change versions so often; says what memory did and what failed."""
    memory = [(0, resident_mib())]
    stop, answered, findings = threading.Event(), [0] * _CALLERS, list[str]()
    callers = [threading.Thread(target=_ask, args=(address, i, stop, answered, findings)) for i in range(_CALLERS)]
    for caller in callers:
        caller.start()
    try:
        with triton.InferenceServerClient(address) as control:
            for swap in tqdm(range(1, swaps + 1), unit="swap", disable=None, leave=False):
                _swap(repository, control, newest=2 + swap)
                memory.append((swap, resident_mib()))
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    first = max(mib for at, mib in memory if at <= FIRST_SWAPS)
    final = statistics.median(mib for _, mib in memory[-_LAST_SWAPS:])
    if final - first > MOST_GROWTH_MIB:
        findings.append(f"memory grew by {final - first:.1f} MiB; at most {MOST_GROWTH_MIB:g} MiB is accepted")
    return {
        "swaps": swaps,
        "answered": sum(answered),
        "after_first_swaps_mib": first,
        "final_mib": final,
        "growth_mib": final - first,
        "findings": findings,
        "memory": memory,
    }


def _swap(repository: Path, control: triton.InferenceServerClient, *, newest: int) -> None:
    onnx_models.save_dense(repository, version=newest, width=WIDTH)
    write_version_labels(repository / "dense", {"stable": newest - 1})
    shutil.rmtree(repository / "dense" / str(newest - 2))
    control.load_model("dense")
    control.unload_model("visitor")
    control.load_model("visitor")


def _ask(address: str, number: int, stop: threading.Event, answered: list[int], findings: list[str]) -> None:
    """Ask without pause, the newest version or the stable one, in batches of all sizes."""
    with triton.InferenceServerClient(address) as client:
        while not stop.is_set():
            x = np.ones((1 + answered[number] % 32, WIDTH), np.float32)
            tensor = triton.InferInput("x", x.shape, "FP32")
            tensor.set_data_from_numpy(x)
            try:
                result = client.infer("dense", [tensor], model_version="stable" if number % 2 else "")
                if not (result.as_numpy("y") == x).all():
                    findings.append("a wrong answer")
                answered[number] += 1
            except InferenceServerException as error:
                findings.append(str(error))
