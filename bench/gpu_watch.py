"""How busy a GPU is while something runs, as `nvidia-smi` tells it."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

_EVERY_MS = 100


@dataclass
class GpuUse:
    """What was seen; empty where there is no GPU.

    Attributes:
        busy_percent: of the samples, each the share of time in which a kernel ran.
    """

    busy_percent: list[float] = field(default_factory=list)

    @property
    def figures(self) -> dict[str, float]:
        """For a row of the report: the mean of the samples but for the first, which looks back to before."""
        seen = self.busy_percent[1:]
        return {"gpu_busy_percent": float(np.mean(seen))} if seen else {}


@contextmanager
def gpu_use() -> Iterator[GpuUse]:
    """Watch the first GPU until leaving."""
    use = GpuUse()
    if shutil.which("nvidia-smi") is None:
        yield use
        return
    query = ["nvidia-smi", "--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    with subprocess.Popen([*query, f"--loop-ms={_EVERY_MS}"], stdout=subprocess.PIPE, text=True) as watch:
        try:
            yield use
        finally:
            watch.terminate()
            printed, _ = watch.communicate()
            use.busy_percent += [float(line) for line in printed.splitlines() if line.strip().isdigit()]
