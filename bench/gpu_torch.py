"""`python -m bench.gpu_torch`: the networks of `bench.gpu_check` through `torch.compile`, where PyTorch is.

Prints rows of the same kind, and appends them to the JSON of a run of `bench.gpu_check`. A batch is copied from
pinned host memory, computed, and copied back, as the server's are.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu_report import Report, add_speed

_SECONDS = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gpu_torch", description=__doc__.partition("\n")[0])
    parser.add_argument("json", type=Path, help="written by bench.gpu_check; gets the rows")
    path = parser.parse_args(arguments).json
    kept = json.loads(path.read_text())
    report = Report(kept["machine"], kept["rows"], path=path)
    import torch
    import torchvision

    report.machine["torch"] = torch.__version__
    resnet = torchvision.models.resnet50()
    measure(report, "mnist-uint8", mnist_network(), (28, 28, 1), "float32", (1, 32, 256))
    measure(report, "resnet50-float16", resnet, (224, 224, 3), "float16", (1, 32, 128))
    return 0


def mnist_network() -> Any:
    """The chapter's network for MNIST, on pictures with channels first."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding="same"), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding="same"), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(7 * 7 * 64, 1024), nn.ReLU(), nn.Linear(1024, 10), nn.Softmax(1),
    )  # fmt: skip


def measure(
    report: Report, model: str, network: Any, shape: tuple[int, int, int], precision: str, sizes: Sequence[int]
) -> None:
    """Note how fast a network is, from pictures `(N, H, W, C)` in host memory to probabilities in host memory."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    dtype = getattr(torch, precision)
    network = network.eval().to("cuda", dtype, memory_format=torch.channels_last)

    def compute(pictures: Any) -> Any:
        return network((pictures.to(dtype) / 255).permute(0, 3, 1, 2)).float()

    compiled = torch.compile(compute, mode="reduce-overhead", dynamic=False)
    began = time.perf_counter()
    with torch.inference_mode():
        for rows in sizes:
            pictures = torch.from_numpy(
                np.random.default_rng(0).integers(0, 256, (rows, *shape), np.uint8)
            ).pin_memory()
            answers = compiled(pictures.to("cuda", non_blocking=True)).cpu()
            assert bool(torch.isfinite(answers).all())
            if rows == sizes[0]:
                report.add("torch.compile, warm", model, precision, "measured", seconds=time.perf_counter() - began)
            for _ in range(5):
                compiled(pictures.to("cuda", non_blocking=True)).cpu()
            times, ends = [], time.perf_counter() + _SECONDS
            while (before := time.perf_counter()) < ends:
                compiled(pictures.to("cuda", non_blocking=True)).cpu()
                times.append(time.perf_counter() - before)
            add_speed(report, "torch.compile", model, precision, rows, times)


if __name__ == "__main__":
    raise SystemExit(main())
