"""Every metric is asserted by a test; here those that no other test needs: what a fault would change, on the page."""

import re
import socket
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from inferry_proto.version_labels import write_version_labels
from inferry_server.app import Server
from inferry_server.http import server as http_server
from inferry_server.telemetry import counters, metric_table
from testkit import onnx_models
from testkit.certificates import Authority
from testkit.gated_server import gated_server
from testkit.metrics_page import read_metrics, total, wait_for_metrics, wait_for_value
from testkit.policies import save_policy
from testkit.rpc import begin, call, infer_request
from testkit.servers import running_server
from testkit.waiting import SOON_S, wait_until

TESTS = Path(__file__).parents[1]
VERSION = '{model="doubler",version="1"}'
DECLARED = re.compile(r'"((?:inferry|rpc_server)_\w+)"')


def named_metrics() -> set[str]:
    """Every metric that a module of telemetry declares."""
    modules = (metric_table, counters)
    return {name for module in modules for name in DECLARED.findall(Path(str(module.__file__)).read_text())}


def test_every_metric_is_named_by_a_test_of_what_the_page_says() -> None:
    tests = [path.read_text() for folder in ("contract", "e2e", "server") for path in (TESTS / folder).rglob("*.py")]
    of_a_test = re.compile(r"""["'](\w+?)(?:_total|_count|_sum)?(?:["']|\{)""")
    named = {name for text in tests for name in of_a_test.findall(text)}
    assert len(named_metrics()) > 50
    assert sorted(named_metrics() - named) == []


def test_batches_are_told_by_rows_time_and_bytes(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with (
        running_server(tmp_path, max_batch_size=8, max_queue_bytes=1 << 20) as server,
        grpc.insecure_channel(str(server.grpc_address)) as channel,
    ):
        for rows in (2, 5):
            call(channel, "ModelInfer", infer_request("doubler", x=np.ones((rows, 3), np.float32)))
        metrics = read_metrics(server)
    expected = {
        "inferry_batch_rows_count": 2, "inferry_batch_rows_sum": 7, "inferry_rows_computed_total": 7,
        "inferry_queue_duration_seconds_count": 2, "inferry_compute_duration_seconds_count": 2,
        "inferry_max_batch_rows": 8, "inferry_queue_limit_bytes": 1 << 20,
    }  # fmt: skip
    assert {name: metrics[name + VERSION] for name in expected} == expected
    for rows, most in ((2, "2"), (5, "6")):
        assert metrics[f'inferry_sized_runs{{model="doubler",rows="{most}",version="1"}}'] == 1, rows
        assert metrics[f'inferry_sized_run_seconds{{model="doubler",rows="{most}",version="1"}}'] > 0, rows
    for direction in ("input", "output"):
        told = f'inferry_tensor_bytes_total{{direction="{direction}",model="doubler",version="1"}}'
        assert metrics[told] == 7 * 3 * 4
    parts = {part: f'{{model="doubler",part="{part}",version="1"}}' for part in ("queue", "compute")}
    queued, computed = (metrics["inferry_model_request_part_seconds_total" + parts[part]] for part in parts)
    assert 0 < metrics["inferry_queue_duration_seconds_sum" + VERSION] <= queued * 1.001
    assert 0 < metrics["inferry_compute_duration_seconds_sum" + VERSION] <= computed * 1.001
    assert 0 < metrics["inferry_busy_seconds_total" + VERSION] < SOON_S


def test_versions_are_timed_at_the_same_sizes_when_one_is_loaded(tmp_path: Path) -> None:
    for version in (1, 2):
        onnx_models.save_doubler(tmp_path, version=version)
    write_version_labels(tmp_path / "doubler", {"stable": 1, "canary": 2})
    with running_server(tmp_path) as server:
        metrics = read_metrics(server)
    for version in (1, 2):
        for rows in (1, 2):
            told = f'inferry_quickest_run_seconds{{model="doubler",rows="{rows}",version="{version}"}}'
            assert 0 < metrics[told] < SOON_S


def test_pictures_that_wait_to_be_decoded_are_told(tmp_path: Path) -> None:
    onnx_models.save_brightness(tmp_path)
    decoded = threading.Event()
    with running_server(tmp_path) as server:

        def decode() -> None:
            decoded.wait(SOON_S)

        for _ in range(3):
            server._decoding.submit(decode, nbytes=1)
        assert read_metrics(server)["inferry_decoding_requests"] == 3
        decoded.set()
        wait_for_value(server, "inferry_decoding_requests", 0)


def test_files_that_are_read_again_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path / "models")
    policy = save_policy(tmp_path / "policy.toml", 'anonymous = ["read"]', first=("infer",))
    authority = Authority(tmp_path, "authority")
    own, next_one = (authority.issue(name, "DNS:localhost") for name in ("own", "next"))

    def counted(server: Server, what: str) -> dict[str, float]:
        values = server.metrics.registry.get_sample_value
        outcomes = ("reloaded", "failed")
        asked = {one: values("inferry_file_reloads_total", {"what": what, "outcome": one}) for one in outcomes}
        return {outcome: value for outcome, value in asked.items() if value}

    def look(server: Server) -> None:
        for _ in range(2):
            server._watcher.look()

    with running_server(
        tmp_path / "models", access_policy=policy, tls_certificate=own.certificate, tls_private_key=own.key
    ) as server:
        look(server)
        assert counted(server, "access policy") == counted(server, "TLS files") == {}
        save_policy(policy, second=("infer",))
        look(server)
        assert counted(server, "access policy") == {"reloaded": 1}
        policy.write_text("callers = 1")
        look(server)
        assert counted(server, "access policy") == {"reloaded": 1, "failed": 1}
        own.key.write_bytes(next_one.key.read_bytes())
        look(server)
        assert counted(server, "TLS files") == {"failed": 1}  # the key is not the certificate's
        own.certificate.write_bytes(next_one.certificate.read_bytes())
        look(server)
        assert counted(server, "TLS files") == {"reloaded": 1, "failed": 1}


def test_what_takes_far_too_long_is_counted_once(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with (
        gated_server(tmp_path, hang_after_s=5.0) as gated,
        grpc.insecure_channel(gated.address) as channel,
    ):
        gated.gate.close()
        held = begin(channel, "ModelInfer", infer_request("doubler", x=np.ones((1, 3), np.float32)))
        gated.gate.wait_for_runs(1)
        gated.clock.advance(10.0)
        metrics = wait_for_value(gated.server, 'inferry_hangs_total{kind="model_run"}', 1)
        assert metrics["inferry_ready"] == 0
        gated.server._watchdog.look()
        gated.gate.open()
        assert held.result(SOON_S)
        metrics = wait_for_value(gated.server, "inferry_ready", 1)
        assert total(metrics, "inferry_hangs_total") == 1


def test_when_the_repository_and_a_version_were_looked_at_last_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    onnx_models.save_brightness(models)
    began = time.time()
    poll, check = "inferry_last_poll_timestamp_seconds", "inferry_last_self_check_timestamp_seconds"
    passed = '{model="brightness",outcome="passed"}'
    with running_server(models, model_control="poll", poll_interval_s=3600) as server:
        assert began <= read_metrics(server)[f'{poll}{{outcome="done"}}'] <= time.time(), "the start looked at it"
    with running_server(models, model_control="poll", poll_interval_s=0.02) as server:
        first = read_metrics(server)[f'{poll}{{outcome="done"}}']
        metrics = wait_for_metrics(server, lambda found: found[f'{poll}{{outcome="done"}}'] > first, "a look")
        assert began <= metrics[f'{poll}{{outcome="done"}}'] <= time.time()
        assert f'{poll}{{outcome="failed"}}' not in metrics
        models.rename(tmp_path / "gone")
        metrics = wait_for_metrics(server, lambda found: f'{poll}{{outcome="failed"}}' in found, "nothing to look at")
        looked = metrics[f'{poll}{{outcome="done"}}']
        metrics = wait_for_metrics(
            server,
            lambda found: found[f'{poll}{{outcome="failed"}}'] > metrics[f'{poll}{{outcome="failed"}}'],
            "another",
        )
        assert metrics[f'{poll}{{outcome="done"}}'] == looked
        (tmp_path / "gone").rename(models)
        metrics = wait_for_metrics(server, lambda found: found[f'{poll}{{outcome="done"}}'] > looked, "a look again")
        monkeypatch.setattr(server._manager, "poll_once", lambda _: 1 / 0)
        before = read_metrics(server)[f'{poll}{{outcome="failed"}}']
        metrics = wait_for_metrics(
            server, lambda found: found[f'{poll}{{outcome="failed"}}'] > before, "a failing look"
        )
        assert began <= metrics[f'{poll}{{outcome="done"}}'] <= metrics[f'{poll}{{outcome="failed"}}'] <= time.time()
        assert check + passed not in metrics
        server._self_check.check_all()
        metrics = read_metrics(server)
        assert began <= metrics[check + passed] <= time.time()
        assert metrics["inferry_self_checks_total" + passed] == 1
        loaded = metrics['inferry_last_load_timestamp_seconds{model="brightness",outcome="ready"}']
        assert began <= loaded <= time.time()


def test_http_connections_that_the_server_closes_are_counted_by_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_TICK_S", 0.01)
    onnx_models.save_doubler(tmp_path)

    def counted(reason: str) -> float:
        name = "inferry_http_connections_closed_total"
        return server.metrics.registry.get_sample_value(name, {"reason": reason}) or 0.0

    with running_server(tmp_path, http_max_connections=2, http_read_timeout_s=SOON_S) as server:
        assert server.http_address is not None
        where = (server.http_address.host, server.http_address.port)
        waiting = [socket.create_connection(where, timeout=SOON_S) for _ in range(3)]
        wait_until(lambda: counted("crowded") == 1, "the one that makes room to be counted")
        with socket.create_connection(where, timeout=SOON_S) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 400")
        wait_until(lambda: counted("invalid") == 1, "what is no request to be counted")
        assert counted("crowded") == 2  # it needed room too
        for one in waiting:
            one.close()
        assert counted("slow") == counted("idle") == 0
    with running_server(tmp_path, http_read_timeout_s=0.1) as server:
        assert server.http_address is not None
        where = (server.http_address.host, server.http_address.port)
        with socket.create_connection(where, timeout=SOON_S) as connection:
            connection.sendall(b"GET / HT")
            assert connection.recv(1) == b""
        wait_until(lambda: counted("slow") == 1, "who is too slow to be counted")
