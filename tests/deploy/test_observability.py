"""The dashboard, the rules and the runbook fit one another, and a server that runs; Prometheus itself judges them."""

import json
import random
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from inferry_proto import classifier_pb2 as pb
from inferry_proto.version_labels import write_version_labels
from inferry_server.app import Server
from inferry_server.batching.latency import LatencyModel
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.batching.scheduler import BatchScheduler
from inferry_server.telemetry.metrics import ServerMetrics
from manifests.facts import ServerFacts, server_facts
from manifests.rules_metrics import query_faults
from observability.dashboard import Panel, panels
from observability.rules import ALERTS, LATENCY_S, examples, groups
from observability.write import FOLDER, ROOT, made_files
from testkit import onnx_models
from testkit.pictures import encode_picture, grey
from testkit.rpc import call, infer_request
from testkit.servers import running_server
from testkit.waiting import wait_until

PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")
with_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool (Debian's package prometheus)")


@pytest.fixture(scope="module")
def facts() -> ServerFacts:
    return server_facts(())


def plain(query: str) -> str:
    """As Grafana would send it."""
    return query.replace("$model", ".*").replace("$__rate_interval", "15s")


@pytest.mark.parametrize("path", sorted(map(str, made_files())))
def test_what_is_made_is_what_is_kept(path: str) -> None:
    assert (ROOT / path).read_text() == made_files()[Path(path)], "make observability; make chart"


def test_every_query_names_metrics_and_labels_that_servers_have(facts: ServerFacts) -> None:
    recorded = {rule["record"] for group in groups() for rule in group["rules"] if "record" in rule}
    known = facts.metrics | dict.fromkeys(recorded, frozenset[str]())
    asked = {panel.title: query.expr for panel in panels() for query in panel.queries}
    asked |= {rule.get("alert", rule.get("record")): rule["expr"] for group in groups() for rule in group["rules"]}
    faults = {name: list(query_faults(plain(query), known)) for name, query in asked.items()}
    assert {name: found for name, found in faults.items() if found} == {}


def test_every_alert_has_its_entry_in_the_runbook_and_no_entry_is_left_over() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / FOLDER / "runbook.md").read_text(), re.MULTILINE)
    assert headings == [alert.name for alert in ALERTS]


def test_the_list_of_metrics_names_every_one_that_a_server_shows() -> None:
    listed = set(re.findall(r"`((?:inferry|rpc)_\w+)", (ROOT / "docs" / "observability.md").read_text()))
    families = ServerMetrics().registry.collect()
    own = {metric.name + "_total" * (metric.type == "counter") for metric in families}
    assert {name for name in own if name.startswith(("inferry_", "rpc_"))} - listed == set()
    gone = listed - own - {"inferry_open_connections"}  # which is told once the port is known
    assert {name for name in gone if not name.endswith("_bucket")} == set()


def test_the_objective_of_latency_is_one_of_the_buckets() -> None:
    metrics = ServerMetrics()
    metrics.model_duration.labels("m", "1")
    (family,) = metrics.model_duration.collect()
    assert LATENCY_S in {sample.labels.get("le") for sample in family.samples}


def test_panels_of_the_dashboard_stand_side_by_side_and_have_names_of_their_own() -> None:
    board = json.loads((ROOT / FOLDER / "dashboard.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert len({panel.title for panel in panels()}) == len(list(panels()))


@pytest.mark.slow  # for `make deploy-check`, whose tools the project itself brings
@with_promtool
def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    subprocess.run([str(PROMTOOL), "check", "rules", str(ROOT / FOLDER / "rules.yaml")], check=True)


def test_alerts_name_servers_outside_of_kubernetes_too() -> None:
    assert [alert.name for alert in ALERTS if "$labels.pod }}" in alert.summary] == [], "there is no pod there"


def test_what_an_alert_wants_to_see_increase_is_there_before() -> None:
    page = generate_latest(ServerMetrics().registry).decode().splitlines()
    counted = [series for alert in ALERTS if "increase(" in alert.expr for series in alert.example.series]
    assert counted
    assert [series for series in counted if f"{series} 0.0" not in page] == []


@pytest.mark.slow  # for `make deploy-check`, whose tools the project itself brings
@with_promtool
def test_each_alert_fires_and_stops(tmp_path: Path) -> None:
    shutil.copy(ROOT / FOLDER / "rules.yaml", tmp_path / "rules.yaml")
    (tmp_path / "examples.yaml").write_text(yaml.safe_dump(examples("rules.yaml"), sort_keys=False, width=10_000))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", "examples.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def batch_s(rows: int) -> float:
    """What a batch takes of the model in these tests."""
    return 0.002 + rows / 4000


def capacity(slowness: float, rows: Sequence[int], *, noise: float, seed: int) -> float:
    """What a version shows that was warmed, and then ran batches of these rows; all take as long, give or take."""
    chance = random.Random(seed)
    policy = BatchingPolicy(max_batch_size=32, max_request_rows=32, max_queue_size=64, max_queue_bytes=1 << 20)
    latency = LatencyModel(32)
    for size in (1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32):
        latency.observe(size, slowness * batch_s(size) * chance.uniform(1, 1.02))
    scheduler = BatchScheduler(policy, latency)
    for size in rows:
        latency.observe(size, slowness * batch_s(size) * chance.uniform(1 - noise, 1 + noise))
    return scheduler.capacity_rows_per_s()


def runs(version: str, rows: str, each_s: float, *, often: int) -> dict[str, str]:
    """Series of a version's runs of so many rows; as `promtool` spells them."""
    labels = f'model="m",version="{version}",rows="{rows}"'
    return {
        f"inferry_sized_runs{{{labels}}}": f"0+{often}x60",
        f"inferry_sized_run_seconds{{{labels}}}": f"0+{often * each_s:.6f}x60",
    }


def quickest(version: str, times: Mapping[int, float]) -> dict[str, str]:
    """Series of a version's quickest runs, of which a slow model has fewer."""
    return {
        f'inferry_quickest_run_seconds{{model="m",version="{version}",rows="{rows}"}}': f"{each_s:.6f}x60"
        for rows, each_s in times.items()
    }


def under_traffic(slowness: float) -> dict[str, str]:
    stable = runs("1", "2", 0.003, often=1) | runs("1", "32", 0.01, often=8)
    return stable | runs("2", "2", 0.003 * slowness, often=4) | runs("2", "1", 0.002 * slowness, often=9)


def when_loaded(slowness: float) -> dict[str, str]:
    stable = quickest("1", {1: 0.002, 2: 0.003, 32: 0.01})
    return stable | quickest("2", {1: 0.002 * slowness, 2: 0.003 * slowness})


@pytest.mark.slow  # for `make deploy-check`, whose tools the project itself brings
@with_promtool
@pytest.mark.parametrize(("slowness", "shown"), [(1.0, (1.0, 1.0)), (1.3, (0.87, 1.13))])
@pytest.mark.parametrize(
    ("title", "told"), [("Computing as many rows, by label", under_traffic), ("Quickest runs, by label", when_loaded)]
)
def test_a_slower_canary_is_seen_in_its_panels_and_the_same_file_is_not(
    tmp_path: Path,
    title: str,
    told: Callable[[float], dict[str, str]],
    slowness: float,
    shown: tuple[float, float],
) -> None:
    (query,) = next(panel for panel in panels() if panel.title == title).queries
    series = told(slowness)
    for version, label in (("1", "stable"), ("2", "canary")):
        series[f'inferry_model_label_info{{model="m",version="{version}",label="{label}"}}'] = "1x60"
    samples = [
        {"labels": f'{{model="m",label="{label}"}}', "value": value}
        for label, value in zip(("stable", "canary"), shown, strict=True)
    ]
    asked = {"expr": f"round({plain(query.expr)}, 0.01)", "eval_time": "4m", "exp_samples": samples}
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    test = {"interval": "5s", "input_series": inputs, "promql_expr_test": [asked]}
    (tmp_path / "canary.yaml").write_text(yaml.safe_dump({"tests": [test]}, width=10_000))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", "canary.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@given(st.integers(0, 1000))
def test_a_canary_shows_what_stable_shows_unless_it_is_slower_whatever_its_traffic(seed: int) -> None:
    stable = capacity(1.0, [17, 24, 32, 9, 28] * 60, noise=0.2, seed=seed)
    same, slower = (capacity(slow, [2] * 300, noise=0.2, seed=seed + 1) for slow in (1.0, 1.3))
    assert same == pytest.approx(stable, rel=0.15)
    assert slower == pytest.approx(stable / 1.3, rel=0.15)


def test_a_version_that_nobody_asks_shows_what_warming_up_told() -> None:
    assert capacity(1.0, [], noise=0, seed=1) == pytest.approx(32 / batch_s(32), rel=0.03)


@contextmanager
def load(*servers: Server) -> Iterator[None]:
    """Requests of every kind, some of them refused, one after another."""
    done = threading.Event()

    def ask(server: Server) -> None:
        picture = pb.Image(encoded=encode_picture(grey(3)))
        with grpc.insecure_channel(str(server.grpc_address)) as channel:
            while not done.wait(0.01):
                for width in (3, 3, 4):
                    with suppress(grpc.RpcError):
                        call(channel, "ModelInfer", infer_request("doubler", x=np.ones((2, width), np.float32)))
                call(channel, "Classify", pb.ClassifyRequest(model_name="brightness", images=[picture]))

    threads = [threading.Thread(target=ask, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **query: str) -> Any:
        """One of its API's answers."""
        url = f"{self._url}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - this machine alone
            return json.loads(answer.read())["data"]

    def is_ready(self) -> bool:
        try:
            return bool(self.ask("/api/v1/query", query="count(inferry_ready == 1) == 2")["result"])
        except OSError:
            return False

    def has_data(self, panel: Panel) -> bool:
        """Whether every query of a panel gives numbers."""
        results = [self.ask("/api/v1/query", query=plain(query.expr))["result"] for query in panel.queries]
        return all(any(one["value"][1] != "NaN" for one in result) for result in results)


@contextmanager
def prometheus(folder: Path, *servers: Server) -> Iterator[Prometheus]:
    """One that scrapes these servers every second, with the rules."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ROOT / FOLDER / "rules.yaml")],
        "scrape_configs": [
            {"job_name": "inferry", "static_configs": [{"targets": [str(server.http_address) for server in servers]}]}
        ],
    }
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    log = folder / "log"
    command = [str(PROMETHEUS), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
               "--web.listen-address=127.0.0.1:0"]  # fmt: skip
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            wait_until(lambda: "Listening on" in log.read_text(), "Prometheus to listen")
            found = re.search(r"Listening on.*?127\.0\.0\.1:(\d+)", log.read_text())
            assert found is not None
            yield Prometheus(int(found[1]))
        finally:
            process.terminate()


@pytest.mark.slow
@pytest.mark.skipif(PROMETHEUS is None, reason="needs Prometheus (Debian's package prometheus)")
def test_a_prometheus_gets_data_for_every_panel_from_servers_under_load(tmp_path: Path) -> None:
    models = tmp_path / "models"
    onnx_models.save_brightness(models)
    for version in (1, 2):
        onnx_models.save_doubler(models, version=version)
    write_version_labels(models / "doubler", {"stable": 1, "canary": 2}, {"stable": 80, "canary": 20})
    settings: dict[str, Any] = {"model_control": "poll", "poll_interval_s": 1.0, "self_check_interval_s": 1.0}
    with (
        running_server(models, **settings) as one,
        running_server(models, **settings) as other,
        prometheus(tmp_path / "prometheus", one, other) as seen,
        load(one, other),
    ):
        wait_until(seen.is_ready, "Prometheus to have seen both")
        shown = [panel for panel in panels() if panel.needs in ("", "polling")]
        ends = time.monotonic() + 40
        while (empty := [panel for panel in shown if not seen.has_data(panel)]) and time.monotonic() < ends:
            time.sleep(1)
        assert [panel.title for panel in empty] == []
        both = "count(inferry:model_busy:ratio_rate5m) == 2"
        wait_until(lambda: bool(seen.ask("/api/v1/query", query=both)["result"]), "both models to be recorded")
        rules = [rule for group in seen.ask("/api/v1/rules")["groups"] for rule in group["rules"]]
        assert {rule["health"] for rule in rules} == {"ok"}
