"""A load report: the rate and how busy the server was, over the last second; a slowed server is busier."""

import struct
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_server.telemetry import load_report
from inferry_server.telemetry.load_report import KEY, WINDOW_S, Done, LoadReport
from testkit import onnx_models
from testkit.servers import running_server
from testkit.waiting import wait_until

INFER = "/inference.GRPCInferenceService/ModelInfer"
CPU, RPS, EPS, BUSY = 1, 6, 7, 9


def read(report: LoadReport) -> dict[int, float]:
    """The fields of an `OrcaLoadReport`."""
    ((key, data),) = report.metadata
    assert key == KEY
    fields = {}
    for place in range(0, len(data), 9):
        tag, value = struct.unpack_from("<Bd", data, place)
        assert tag & 7 == 1
        fields[tag >> 3] = value
    return fields


def done(compute_s: float, answered: int = 0, failed: int = 0, version: str = "1") -> Done:
    return Done({("m", version): compute_s}, answered, failed)


def test_rate_and_utilization_are_those_of_the_window() -> None:
    report = LoadReport(cores=2, instances=1)
    assert report.metadata == ()
    for tick in range(9):  # a quarter of the time computing, 100 requests a second, ten of them refused
        report.tick(10 + tick / 4, cpu_s=tick / 8, done=done(tick / 16, round(22.5 * tick), round(2.5 * tick)))
    fields = read(report)
    assert fields[BUSY] == pytest.approx(0.25)
    assert fields[CPU] == pytest.approx(0.25)
    assert fields[RPS] == pytest.approx(100, rel=0.02)
    assert fields[EPS] == pytest.approx(10, rel=0.3)


def test_an_idle_server_forgets_what_it_did_a_window_ago() -> None:
    report = LoadReport(cores=1, instances=1)
    report.tick(0, cpu_s=0, done=done(0))
    report.tick(1, cpu_s=0.9, done=done(1, 500))
    for tick in range(1, 9):
        report.tick(1 + tick / 4, cpu_s=0.9, done=done(1, 500))
    assert read(report) == {}


def test_a_server_whose_cores_are_taken_away_is_busier_at_the_same_rate() -> None:
    free, throttled = LoadReport(cores=1, instances=1), LoadReport(cores=1, instances=1)
    for tick in range(6):
        free.tick(tick / 4, cpu_s=tick / 16, done=done(tick / 16, 10 * tick))
        throttled.tick(tick / 4, cpu_s=tick / 16, done=done(tick / 8, 10 * tick))
    assert read(free)[RPS] == read(throttled)[RPS]
    assert read(throttled)[BUSY] == pytest.approx(2 * read(free)[BUSY])


def test_a_version_that_leaves_and_one_that_comes_take_nothing_away() -> None:
    report = LoadReport(cores=1, instances=1)
    report.tick(0, cpu_s=0, done=done(50, version="1"))
    report.tick(0.5, cpu_s=0, done=done(0.25, version="2"))
    assert read(report)[BUSY] == pytest.approx(0.5)


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 5), st.floats(0, 5), st.integers(0, 9), st.integers(0, 9))))
def test_no_number_is_negative_whatever_the_clock_does(steps: list[tuple[float, float, float, int, int]]) -> None:
    report = LoadReport(cores=2, instances=2)
    now = cpu = spent = 0.0
    answered = failed = 0
    for elapsed, more_cpu, more_spent, more_answered, more_failed in steps:
        now, cpu, spent = now + elapsed, cpu + more_cpu, spent + more_spent
        answered, failed = answered + more_answered, failed + more_failed
        report.tick(now, cpu_s=cpu, done=done(spent, answered, failed))
        if report.metadata:
            assert all(value > 0 for value in read(report).values())
    assert WINDOW_S > 0


def trailers(address: str) -> dict[str, str | bytes]:
    """Of one answer."""
    message = ModelInferRequest(model_name="doubler", raw_input_contents=[np.ones(3, np.float32).tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    with grpc.insecure_channel(address) as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
        _, call = infer.with_call(message.SerializeToString(), timeout=20)
        return dict(call.trailing_metadata())


def test_replies_tell_the_load_where_the_server_is_told_to(
    transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under another name: gRPC keeps the right one to itself."""
    monkeypatch.setattr(load_report, "KEY", "test-bin")
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path, transport=transport, report_load=True) as server:

        def told() -> bool:
            data = trailers(str(server.grpc_address)).get("test-bin", b"")
            assert isinstance(data, bytes)
            return {RPS, BUSY} <= {tag >> 3 for tag in data[::9]}

        wait_until(told, "the rate in the report", look_again_s=0.05)


def test_replies_tell_nothing_unless_asked(transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_report, "KEY", "test-bin")
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path, transport=transport) as server:
        assert trailers(str(server.grpc_address)) == {}
