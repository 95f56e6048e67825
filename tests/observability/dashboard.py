"""The dashboard of Grafana, from a list of panels: each is a question, and the queries that answer it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_M = 'model=~"$model"'
_BAD = 'outcome=~"refused|failed"'
_RATE = "[$__rate_interval]"
_WIDTH, _COLUMNS, _HEIGHT = 24, 3, 8


@dataclass(frozen=True)
class Query:
    """PromQL, and how its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One question.

    Attributes:
        unit: Grafana's word for it.
        stacked: series are parts of a whole.
        needs: what a server must have for data to come: `gpu`, `tls`, `polling`; empty for every one.
    """

    title: str
    question: str
    queries: Sequence[Query]
    unit: str = "short"
    stacked: bool = False
    needs: str = ""


def _rate(metric: str, by: str, more: str = "") -> str:
    labels = ", ".join(filter(None, (_M, more)))
    return f"sum by ({by}) (rate({metric}{{{labels}}}{_RATE}))"


def _quantile(share: float, metric: str, by: str) -> str:
    return f"histogram_quantile({share}, {_rate(f'{metric}_bucket', f'{by}, le')})"


def _of_label(expr: str) -> str:
    """Values by model and version, by label instead."""
    return f"sum by (model, label) (({expr}) * on (model, version) group_right () group by (model, version, label) (inferry_model_label_info{{{_M}}}))"


_REQUESTS = "inferry_model_requests_total"
_DURATION = "inferry_model_request_duration_seconds"
_PARTS = "inferry_model_request_part_seconds_total"
_ANSWERED = _rate(f"{_DURATION}_count", "model, version")
_BUSY = f"{_rate('inferry_busy_seconds_total', 'model, version')} / sum by (model, version) (inferry_instances{{{_M}}})"
_SIZED_S = _rate("inferry_sized_run_seconds", "model, version, rows")
_SIZED_RUNS = _rate("inferry_sized_runs", "model, version, rows")
_RUN_S = f"({_SIZED_S} / ({_SIZED_RUNS} > 0))"
# The mean over versions, each counting the same: of the sizes that at least two of them ran.
_USUAL_S = f"(avg by (model, rows) ({_RUN_S}) and on (model, rows) count by (model, rows) ({_RUN_S}) > 1)"
_BESIDE_OTHERS = (
    f"sum by (model, version) ({_SIZED_S} and on (model, rows) {_USUAL_S}) / "
    f"(sum by (model, version) ({_SIZED_RUNS} * on (model, rows) group_left () {_USUAL_S}) > 0)"
)
_QUICKEST_S = f"min by (model, version, rows) (inferry_quickest_run_seconds{{{_M}}})"
_USUAL_QUICKEST_S = (
    f"(avg by (model, rows) ({_QUICKEST_S}) and on (model, rows) count by (model, rows) ({_QUICKEST_S}) > 1)"
)
_QUICKEST_BESIDE_OTHERS = (
    f"quantile by (model, version) (0.5, {_QUICKEST_S} / on (model, rows) group_left () {_USUAL_QUICKEST_S})"
)
_CAPACITY = f"avg by (model, version) (avg_over_time(inferry_capacity_rows_per_second{{{_M}}}{_RATE}))"

ROWS: tuple[tuple[str, Sequence[Panel]], ...] = (
    ("Answers", (
        Panel(
            "Requests", "How much is asked, and how does it end?",
            [Query(_rate(_REQUESTS, "model, outcome"), "{{model}} {{outcome}}")], "reqps",
        ),
        Panel(
            "Errors and refusals by reason", "Why are requests refused or failed?",
            [Query(f"{_rate(_REQUESTS, 'model, reason', _BAD)} or vector(0)", "{{model}} {{reason}}")],
            "reqps",
        ),
        Panel(
            "Latency", "How long do callers wait, in the server?",
            [Query(_quantile(share, _DURATION, "model"), f"{{{{model}}}} p{share * 100:g}") for share in (0.5, 0.99)], "s",
        ),
    )),
    ("Where the time goes", (
        Panel(
            "A request's time, by part", "Is it the queue or the compute?",
            [Query(
                f"{_rate(_PARTS, 'model, part')} / ignoring (part) group_left sum by (model) ({_ANSWERED})",
                "{{model}} {{part}}",
            )],
            "s", stacked=True,
        ),
        Panel(
            "Waiting", "How long does a request wait for its batch?",
            [Query(_quantile(share, "inferry_queue_duration_seconds", "model"), f"{{{{model}}}} p{share * 100:g}")
             for share in (0.5, 0.99)], "s",
        ),
        Panel(
            "Computing", "How long does one batch take?",
            [Query(_quantile(share, "inferry_compute_duration_seconds", "model, version"),
                   f"{{{{model}}}} {{{{version}}}} p{share * 100:g}") for share in (0.5, 0.99)], "s",
        ),
    )),
    ("Room", (
        Panel(
            "Busy share", "Is a model's device busy?", [Query(_BUSY, "{{model}} {{version}}")], "percentunit",
        ),
        Panel(
            "Rows a second, and what could be", "How many replicas are needed?",
            [
                Query(_rate("inferry_rows_computed_total", "model"), "{{model}} computed"),
                Query(f"sum by (model) (inferry_capacity_rows_per_second{{{_M}}})", "{{model}} capacity"),
            ],
        ),
        Panel(
            "Rows that wait, of those that may", "How full is the queue?",
            [Query(
                f"max by (model, lane) (inferry_queue_rows{{{_M}}} / on (instance, model, version) group_left "
                "inferry_queue_limit_rows)", "{{model}} {{lane}}",
            )],
            "percentunit",
        ),
        Panel(
            "Rows a batch", "Do batches form?",
            [Query(f"{_rate('inferry_batch_rows_sum', 'model')} / {_rate('inferry_batch_rows_count', 'model')}", "{{model}}")],
        ),
        Panel(
            "Tensor bytes", "How much travels?",
            [Query(_rate("inferry_tensor_bytes_total", "model, direction"), "{{model}} {{direction}}")], "Bps",
        ),
        Panel(
            "Connections, of those that may be", "Are connections spread?",
            [Query("inferry_open_connections / inferry_open_connections_limit", "{{instance}}")], "percentunit",
        ),
    )),
    ("Stable and canary", (
        Panel(
            "Quickest runs, by label",
            "Is the canary slower? The quickest runs of the versions, which were timed in turns when one was loaded, "
            "divided by the mean over versions: what takes 30 % longer is 30 % above, whatever traffic it has, "
            "if the server had little to do when it was loaded.",
            [Query(_of_label(_QUICKEST_BESIDE_OTHERS), "{{model}} {{label}}")], "percentunit",
        ),
        Panel(
            "Computing as many rows, by label",
            "What do runs take under traffic? Their time divided by what runs of as many rows take on average over "
            "versions. A version that is asked less takes longer for that alone.",
            [Query(_of_label(_BESIDE_OTHERS), "{{model}} {{label}}")], "percentunit",
        ),
        Panel(
            "Capacity by label",
            "How much could each compute? Rows a second in full batches, as expected from those that ran; where the "
            "cores are busy with other work, small batches promise more than large ones keep.",
            [Query(_of_label(_CAPACITY), "{{model}} {{label}}")], "short",
        ),
        Panel(
            "Computing a row, by label", "What does a row cost each, in the batches that it gets?",
            [Query(_of_label(
                f"{_rate('inferry_busy_seconds_total', 'model, version')} / "
                f"{_rate('inferry_rows_computed_total', 'model, version')}"), "{{model}} {{label}}")], "s",
        ),
        Panel(
            "Latency by label", "What do callers of each wait?",
            [Query(_of_label(_quantile(0.99, _DURATION, "model, version")), "{{model}} {{label}} p99")], "s",
        ),
        Panel(
            "Refused or failed, by label", "Does the canary fail?",
            [Query(_of_label(
                f"({_rate(_REQUESTS, 'model, version', _BAD)} or 0 * {_ANSWERED}) / "
                f"{_rate(_REQUESTS, 'model, version')}"), "{{model}} {{label}}")], "percentunit",
        ),
        Panel(
            "Traffic by label", "Does each get its share?",
            [Query(_of_label(_rate(_REQUESTS, "model, version")), "{{model}} {{label}}")], "reqps",
        ),
        Panel(
            "Weights", "Which share should each get?",
            [Query(
                f"max by (model, label) (inferry_model_traffic_weight{{{_M}}}) / ignoring (label) group_left "
                f"sum by (model) (max by (model, label) (inferry_model_traffic_weight{{{_M}}}))", "{{model}} {{label}}",
            )],
            "percentunit",
        ),
    )),
    ("Models and servers", (
        Panel(
            "Ready servers", "Who is ready?",
            [Query("sum(inferry_ready)", "ready"), Query("count(inferry_ready)", "all")],
        ),
        Panel(
            "Versions", "Which versions are served, and on what?",
            [Query(f"count by (model, version, provider) (inferry_model_info{{{_M}}})", "{{model}} {{version}} {{provider}}")],
        ),
        Panel(
            "Loads", "Do versions load?",
            [Query(f"sum by (model, outcome) (increase(inferry_model_loads_total{{{_M}}}[1h]))", "{{model}} {{outcome}}")],
        ),
        Panel(
            "Self-checks", "Are served answers still right?",
            [Query(f"sum by (model, outcome) (increase(inferry_self_checks_total{{{_M}}}[1h])) or vector(0)",
                   "{{model}} {{outcome}}")],
        ),
        Panel(
            "Since the last look at the repository", "Is polling alive?",
            [Query('time() - inferry_last_poll_timestamp_seconds{outcome="done"}', "{{instance}}")], "s", needs="polling",
        ),
        Panel(
            "Hangs, ended runs, device errors", "Is something stuck?",
            [
                Query("sum by (kind) (increase(inferry_hangs_total[1h])) or vector(0)", "hang {{kind}}"),
                Query("sum by (reason) (increase(inferry_runs_ended_total[1h])) or vector(0)", "run ended {{reason}}"),
                Query("sum by (kind) (increase(inferry_device_errors_total[1h])) or vector(0)", "device {{kind}}"),
            ],
        ),
        Panel(
            "Certificates end in", "When must certificates be renewed?",
            [Query("inferry_tls_not_after_timestamp_seconds - time()", "{{instance}} {{file}}")], "s", needs="tls",
        ),
        Panel(
            "Memory", "How much memory do servers hold?",
            [Query("process_resident_memory_bytes * on (instance) group_left () inferry_build_info", "{{instance}}")], "bytes",
        ),
        Panel(
            "CPU", "How many cores do servers use?",
            [Query(f"rate(process_cpu_seconds_total{_RATE}) * on (instance) group_left () inferry_build_info",
                   "{{instance}}")],
        ),
        Panel(
            "GPU memory", "How full is GPU memory?",
            [Query("inferry_gpu_memory_used_bytes / inferry_gpu_memory_total_bytes", "{{instance}} {{gpu}}")],
            "percentunit", needs="gpu",
        ),
        Panel(
            "GPU utilisation", "Do GPUs compute?", [Query("inferry_gpu_utilization_ratio", "{{instance}} {{gpu}}")],
            "percentunit", needs="gpu",
        ),
        Panel(
            "Builds", "What runs?",
            [Query("count by (version, python, onnxruntime) (inferry_build_info)",
                   "{{version}} · Python {{python}} · ONNX Runtime {{onnxruntime}}")],
        ),
    )),
)  # fmt: skip


def panels() -> Iterator[Panel]:
    """Every panel."""
    for _, row in ROWS:
        yield from row


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    shown: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        shown.append({"id": len(shown) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
                      "gridPos": {"x": 0, "y": top, "w": _WIDTH, "h": 1}})  # fmt: skip
        width = _WIDTH // _COLUMNS
        for position, panel in enumerate(row):
            place = {"x": position % _COLUMNS * width, "y": top + 1 + position // _COLUMNS * _HEIGHT,
                     "w": width, "h": _HEIGHT}  # fmt: skip
            shown.append(_panel(panel, place, len(shown) + 1))
        top += 1 + -(-len(row) // _COLUMNS) * _HEIGHT
    return {
        "uid": "inferry", "title": "Inferry", "tags": ["inferry"], "schemaVersion": 39, "editable": True,
        "refresh": "10s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
            {"name": "model", "type": "query", "label": "Model", "includeAll": True, "multi": True, "allValue": ".*",
             "datasource": {"type": "prometheus", "uid": "${datasource}"}, "refresh": 2,
             "current": {"text": "All", "value": "$__all"},
             "query": {"query": "label_values(inferry_model_info, model)", "refId": "models"}},
        ]},
        "panels": shown,
    }  # fmt: skip


def _panel(panel: Panel, place: dict[str, int], number: int) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    custom: dict[str, Any] = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}
    if panel.stacked:
        custom |= {"stacking": {"mode": "normal"}, "fillOpacity": 40}
    return {
        "id": number, "type": "timeseries", "title": panel.title, "description": panel.question, "gridPos": place,
        "datasource": source,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + position), "expr": query.expr, "legendFormat": query.legend, "datasource": source}
            for position, query in enumerate(panel.queries)
        ],
    }  # fmt: skip
