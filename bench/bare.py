"""The model without any server: MODEL THREADS SECONDS ROWS…, a fresh process.

Prints JSON, for each number of rows: images_per_s, batch_cpu_us (of the process), p50_ms, p99_ms.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.contenders import SHAPE
from bench.load_generator import percentile
from bench.peers.model import CountedModel


def main() -> None:
    model_path, threads, seconds, *sizes = sys.argv[1:]
    with tempfile.NamedTemporaryFile() as counts:
        np.zeros(2, np.int64).tofile(counts.name)
        model = CountedModel(Path(model_path), threads=int(threads), counts=Path(counts.name))
        print(json.dumps({rows: measure(model, int(rows), float(seconds)) for rows in sizes}))


def measure(model: CountedModel, rows: int, seconds: float) -> dict[str, float]:
    images = np.random.default_rng(0).integers(0, 256, (rows, *SHAPE), np.uint8)
    for _ in range(3):
        model.run(images)
    times: list[float] = []
    cpu, started = time.process_time(), time.perf_counter()
    while (before := time.perf_counter()) - started < seconds:
        model.run(images)
        times.append(time.perf_counter() - before)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - started
    return {
        "images_per_s": len(times) * rows / wall,
        "batch_cpu_us": cpu / len(times) * 1e6,
        "p50_ms": percentile(times, 50) * 1e3,
        "p99_ms": percentile(times, 99) * 1e3,
    }


if __name__ == "__main__":
    main()
