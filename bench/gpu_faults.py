"""A GPU that is lost, really: a kernel writes where there is no memory, and the model's next batch must say so.

`python -m bench.gpu_faults MODEL.onnx` does that to its own process, after which the GPU computes nothing more in it,
and prints what followed as JSON. It needs CuPy.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu_report import Report
from inferry_server.errors import InferenceError
from inferry_server.runtime.device_health import DeviceHealth
from inferry_server.runtime.instances import Devices, make_instance, open_session
from inferry_server.runtime.providers import CPU, CUDA, choose_providers, preload_libraries

_ROWS = 4
_KERNEL = 'extern "C" __global__ void wild(float* p) { p[1ull << 40] = 1.0f; }'


def check_lost(report: Report, path: Path, model: str, *, on_gpu: bool) -> None:
    """Every batch after the fault is refused as the device's, and the server is told once."""
    if not on_gpu:
        report.add("lost", model, "", "no GPU")
        return
    if importlib.util.find_spec("cupy") is None:
        report.add("lost", model, "", "no CuPy")
        return
    command = [sys.executable, "-m", "bench.gpu_faults", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        report.check("lost", model, "", holds=False, reason=reason)
        return
    found = json.loads(done.stdout.splitlines()[-1])
    holds = found["refused_with"] == ["DeviceLostError"] * 2 and len(found["told"]) == 1
    report.check("lost", model, "", holds=holds, **found)


def main() -> None:
    import cupy

    preload_libraries(choose_providers("cuda"), tf32=False)
    told: list[str] = []
    devices = Devices(health=DeviceHealth(told.append))
    loaded = open_session(Path(sys.argv[1]), (CUDA, CPU), devices, device_id=0, intra_op_num_threads=1)
    instance = make_instance(loaded, devices, loaded.session.signature, (_ROWS,))
    (spec,) = loaded.session.signature.inputs
    inputs: dict[str, Any] = {spec.name: np.ones((_ROWS, *spec.shape[1:]), spec.datatype.dtype)}
    instance.run(inputs)
    instance.prepare()
    instance.run(inputs)
    cupy.RawKernel(_KERNEL, "wild")((1,), (1,), (cupy.zeros(1, dtype=cupy.float32),))
    refused_with = []
    for _ in range(2):
        try:
            instance.run(inputs)
            refused_with.append("")
        except InferenceError as error:
            refused_with.append(type(error).__name__)
    instance.close()
    print(json.dumps({"refused_with": refused_with, "told": told}), flush=True)


if __name__ == "__main__":
    main()
