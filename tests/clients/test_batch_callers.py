"""Jobs beside callers of their server on the same machine: decoding leaves a core while there are any."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_client.batch.callers import Callers, is_beside
from inferry_proto import open_inference_pb2 as pb
from testkit import brightness_model
from testkit.scripted_server import Refusal, ScriptedServer
from testkit.waiting import SOON_S, wait_until

_CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
_on_cores = pytest.mark.skipif(_CORES < 2, reason="there is no core to leave")


@given(st.integers(0, 100), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1))
def test_a_job_alone_sees_no_callers_whatever_is_under_way(before: int, steps: list[tuple[int, int]]) -> None:
    callers, answered = Callers(), 0
    callers.look(before, own=0, now=0.0)
    assert callers.near
    for more, under_way in steps:
        answered += more
        callers.look(before + answered, own=answered + under_way, now=1.0)
        assert not callers.near


@given(
    st.integers(0, 100), st.integers(1, 9), st.lists(st.tuples(st.booleans(), st.sampled_from([0.25, 0.5, 1.25, 4.75])))
)
def test_callers_are_near_until_for_five_seconds_none_has_asked(
    before: int, asked: int, looks: list[tuple[bool, float]]
) -> None:
    """However long a look takes, as it does where all cores are busy."""
    callers, now = Callers(), 100.0
    for _ in range(2):
        callers.look(before, own=0, now=now)
    assert not callers.near
    callers.look(before + asked, own=0, now=now)
    for tells, seconds in looks:
        now += seconds
        callers.look(before + asked if tells else None, own=0, now=now)
        assert callers.near == (now < 105.0)


def test_callers_are_seen_after_a_restart_of_the_server() -> None:
    callers = Callers()
    for _ in range(2):
        callers.look(1000, own=10, now=0.0)
    callers.look(2, own=10, now=0.0)
    assert not callers.near
    callers.look(3, own=10, now=0.0)
    assert callers.near


def test_a_server_that_does_not_tell_has_no_callers() -> None:
    callers = Callers()
    for _ in range(2):
        callers.look(None, own=0, now=0.0)
    assert not callers.near


@pytest.mark.parametrize(
    ("servers", "beside"),
    [
        ("127.0.0.1:8001", True), ("localhost:8001", True), ("[::1]:8001", True), ("unix:/run/inferry", True),
        ("10.0.0.7:8001", False), ("inferry:8001", False), ("dns:///inferry:8001", False),
        ("127.0.0.1:8001,127.0.0.1:8002", False),
    ],
)  # fmt: skip
def test_a_job_is_beside_one_server_on_loopback(servers: str, beside: bool) -> None:
    assert is_beside(servers) == beside


@_on_cores
@pytest.mark.parametrize(("others", "cores"), [(7, _CORES - 1), (0, _CORES), (None, _CORES)])
def test_decoders_leave_a_core_while_others_ask_and_none_where_nobody_does(
    brightness_server: ScriptedServer, tmp_path: Path, others: int | None, cores: int
) -> None:
    brightness_model.write_pictures(tmp_path / "in", 8)
    looks = 0

    def count(_: Any) -> Any:
        """What the server has answered: so many requests of others more with each look."""
        nonlocal looks
        looks += 1
        if others is None:
            raise Refusal(grpc.StatusCode.PERMISSION_DENIED, "not for you")
        counts = pb.InferStatistics(success=pb.StatisticDuration(count=looks * others))
        return pb.ModelStatisticsResponse(model_stats=[pb.ModelStatistics(name="brightness", inference_stats=counts)])

    def used() -> set[int]:
        """How many cores the threads of decoding processes may use."""
        threads = [thread.id for one in job.children() for thread in one.threads()]
        return {len(os.sched_getaffinity(thread)) for thread in threads}

    def infer(request: Any) -> Any:
        wait_until(lambda: looks > 4 and used() == {cores}, f"{cores} cores")
        return brightness_model.infer(request)

    brightness_server.scripts |= {"ModelStatistics": count, "ModelInfer": infer}
    command = [sys.executable, "-m", "inferry_client", "batch", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [*command, "--server", brightness_server.address, "--decoders", "2"], env=os.environ | path
    ) as process:
        job = psutil.Process(process.pid)
        assert process.wait(SOON_S) == 0
