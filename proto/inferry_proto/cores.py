"""How many cores this process really has, wherever it computes or sends."""

import os
from pathlib import Path

CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
CGROUP_V1_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
CGROUP_V1_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def available_cores() -> int:
    """Cores to compute on: the CPU affinity, cut down to the container's quota; at least 1.

    ONNX Runtime alone, and `os.cpu_count`, count the machine's cores and oversubscribe a container.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores_from(affinity, cgroup_quota())


def cores_from(affinity: int, quota: float | None) -> int:
    """Whole cores within both limits. A quota of 1.5 gives 1: a second thread would be throttled."""
    return max(1, affinity if quota is None else min(affinity, int(quota)))


def cgroup_quota(
    v2: Path = CGROUP_V2, v1_quota: Path = CGROUP_V1_QUOTA, v1_period: Path = CGROUP_V1_PERIOD
) -> float | None:
    """The container's CPU quota in cores, or None where there is none."""
    if (fields := _read(v2)) is not None:
        quota, period = fields.split()
        return None if quota == "max" else int(quota) / int(period)
    quota_us, period_us = _read(v1_quota), _read(v1_period)
    if quota_us is None or period_us is None or int(quota_us) <= 0:
        return None
    return int(quota_us) / int(period_us)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
