import subprocess
import sys
from pathlib import Path

import pytest

from inferry_proto.cores import available_cores, cgroup_quota, cores_from


@pytest.mark.parametrize(
    ("affinity", "quota", "cores"), [(8, None, 8), (8, 2.0, 2), (2, 4.0, 2), (8, 1.5, 1), (8, 0.25, 1)]
)
def test_cores_are_the_smaller_of_affinity_and_whole_quota(affinity: int, quota: float | None, cores: int) -> None:
    assert cores_from(affinity, quota) == cores


@pytest.mark.parametrize(("text", "quota"), [("max 100000\n", None), ("150000 100000\n", 1.5)])
def test_the_quota_of_cgroup_v2_is_read(tmp_path: Path, text: str, quota: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert cgroup_quota(tmp_path / "cpu.max") == quota


@pytest.mark.parametrize(("quota_us", "quota"), [("-1", None), ("300000", 3.0)])
def test_the_quota_of_cgroup_v1_is_read(tmp_path: Path, quota_us: str, quota: float | None) -> None:
    (tmp_path / "quota").write_text(quota_us)
    (tmp_path / "period").write_text("100000")
    assert cgroup_quota(tmp_path / "absent", tmp_path / "quota", tmp_path / "period") == quota


def test_a_machine_without_cgroups_has_no_quota(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert cgroup_quota(absent, absent, absent) is None
    assert available_cores() >= 1


def test_a_process_that_is_bound_to_one_core_counts_one() -> None:
    code = (
        "import os; from inferry_proto.cores import available_cores;"
        "os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1]); print(available_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
