"""What Prometheus records and alerts on, each alert with an example in which it fires and stops."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

AVAILABILITY = 0.999
"""The share of requests that should not be refused or failed by the server's fault."""

LATENCY, LATENCY_S = 0.99, "0.1"
"""The share of answered requests that should take no longer than that; the bound is one of the buckets."""

# Reasons that are no caller's mistake: for want of capacity, of time, or of a server that stays.
OWN_FAULTS = "shed|queue_full_.*|overloaded|deadline_.*|shutting_down"
WINDOWS = ("5m", "30m", "1h", "6h")
_BY = "sum by (namespace, model)"


@dataclass(frozen=True)
class Example:
    """Series under which an alert fires at one time and does not at another, in minutes; values as promtool has them."""

    series: Mapping[str, str]
    fires_at: int
    quiet_at: int


@dataclass(frozen=True)
class Alert:
    """An alert; its entry in runbook.md has its name as the heading.

    Attributes:
        expr: fires where it gives something.
        lasts: for how long it must; empty for at once.
        severity: `critical` wakes somebody up, `warning` waits for the morning.
    """

    name: str
    expr: str
    lasts: str
    severity: str
    summary: str
    example: Example


def recorded() -> Iterator[dict[str, str]]:
    """The recording rules: shares of bad requests over each window, by model."""
    for window in WINDOWS:
        counted = f'{_BY} (rate(inferry_model_requests_total{{outcome!="cancelled"}}[{window}]))'
        failed = f'inferry_model_requests_total{{outcome="failed"}}[{window}]'
        refused = f'inferry_model_requests_total{{outcome="refused", reason=~"{OWN_FAULTS}"}}[{window}]'
        bad = f"({_BY} (rate({failed}) or rate({refused})) or 0 * {counted})"
        yield {"record": f"inferry:model_errors:ratio_rate{window}", "expr": f"{bad} / {counted}"}
        answered = f"{_BY} (rate(inferry_model_request_duration_seconds_count[{window}]))"
        in_time = f'{_BY} (rate(inferry_model_request_duration_seconds_bucket{{le="{LATENCY_S}"}}[{window}]))'
        yield {"record": f"inferry:model_slow:ratio_rate{window}", "expr": f"1 - {in_time} / {answered}"}
    busy = f"{_BY} (rate(inferry_busy_seconds_total[5m])) / {_BY} (inferry_instances)"
    yield {"record": "inferry:model_busy:ratio_rate5m", "expr": busy}


def _burns(record: str, budget: float, *, times: float, long: str, short: str) -> str:
    """Both windows spend the budget so many times too fast: the long one tells that it matters, the short one that it
    still goes on."""
    limit = f"{times * budget:.6g}"
    return f"inferry:{record}:ratio_rate{long} > {limit} and inferry:{record}:ratio_rate{short} > {limit}"


def _lately_failed(metric: str) -> str:
    """Within a quarter of an hour: `increase` of a counter does not see a failure that is the first, and may be the
    only one."""
    return f'time() - max by (namespace, model) ({metric}{{outcome="failed"}}) < 900'


def _counter(metric: str, labels: str, *, quiet_minutes: int = 60) -> Mapping[str, str]:
    """Something that happens once in the sixth minute; so the series is there before."""
    return {f"{metric}{{{labels}}}": f"0x5 1x{quiet_minutes}"}


def _moment(metric: str) -> Mapping[str, str]:
    """When something happened last, which it did first in the sixth minute: before, there is no such series."""
    return {f'{metric}{{model="m", outcome="failed"}}': "_x5 360x60"}


def _requests(bad: str, good: str) -> Mapping[str, str]:
    model = 'namespace="n", model="m", version="1"'
    return {
        f'inferry_model_requests_total{{{model}, outcome="answered", reason=""}}': good,
        f'inferry_model_requests_total{{{model}, outcome="refused", reason="overloaded"}}': bad,
    }


def _slow(in_time: str, answered: str) -> Mapping[str, str]:
    model = 'namespace="n", model="m", version="1"'
    return {
        f'inferry_model_request_duration_seconds_bucket{{{model}, le="{LATENCY_S}"}}': in_time,
        f"inferry_model_request_duration_seconds_count{{{model}}}": answered,
    }


_ERRORS, _SLOW = 1 - AVAILABILITY, 1 - LATENCY
_TENTH_BAD = ("0+10x90 900x400", "0+90x90 8100+100x400")  # a tenth fails for an hour and a half, then none does
_FIFTH_SLOW = ("0+80x90 7200+100x400", "0+100x490")

ALERTS = (
    Alert(
        "InferryNoServer", "absent(inferry_ready == 1)", "2m", "critical", "No server is ready for requests.",
        Example({'inferry_ready{pod="a"}': "0x10 1x20"}, 5, 15),
    ),
    Alert(
        "InferryNotReady", "inferry_ready == 0", "5m", "warning",
        "{{ or $labels.pod $labels.instance }} has not been ready for five minutes; /readyz on its HTTP port says why.",
        Example({'inferry_ready{pod="a"}': "0x10 1x20", 'inferry_ready{pod="b"}': "1x40"}, 8, 15),
    ),
    Alert(
        "InferryErrorsBurnFast", _burns("model_errors", _ERRORS, times=14.4, long="1h", short="5m"), "", "critical",
        "{{ $labels.model }} refuses or fails so many requests that a month's budget of errors is gone in two days.",
        Example(_requests(*_TENTH_BAD), 80, 130),
    ),
    Alert(
        "InferryErrorsBurnSlowly", _burns("model_errors", _ERRORS, times=6, long="6h", short="30m"), "", "warning",
        "{{ $labels.model }} refuses or fails so many requests that a month's budget of errors is gone in five days.",
        Example(_requests(*_TENTH_BAD), 80, 200),
    ),
    Alert(
        "InferryLatencyBurnsFast", _burns("model_slow", _SLOW, times=14.4, long="1h", short="5m"), "", "critical",
        f"Far too many requests for {{{{ $labels.model }}}} take longer than {LATENCY_S} s.",
        Example(_slow(*_FIFTH_SLOW), 80, 130),
    ),
    Alert(
        "InferryLatencyBurnsSlowly", _burns("model_slow", _SLOW, times=6, long="6h", short="30m"), "", "warning",
        f"Too many requests for {{{{ $labels.model }}}} take longer than {LATENCY_S} s.",
        Example(_slow(*_FIFTH_SLOW), 80, 200),
    ),
    Alert(
        "InferryRefusals",
        f'{_BY} (rate(inferry_model_requests_total{{outcome="refused", reason=~"{OWN_FAULTS}"}}[5m])) > 0.1',
        "5m", "warning",
        "Requests for {{ $labels.model }} are refused for want of capacity: more replicas, or fewer rows a request.",
        Example(_requests("0+30x20 600x40", "0+100x60"), 15, 35),
    ),
    Alert(
        "InferryInternalErrors",
        'sum by (namespace, method) (rate(inferry_requests_outcome_total{code=~"INTERNAL|UNKNOWN"}[5m])) > 0',
        "5m", "critical", "{{ $labels.method }} fails with internal errors; the server's log has them.",
        Example(
            {'inferry_requests_outcome_total{method="/s/M", code="INTERNAL", reason="inference_failed"}': "0+1x20 20x40"},
            15, 35,
        ),
    ),
    Alert(
        "InferrySaturated", "inferry:model_busy:ratio_rate5m > 0.9", "10m", "warning",
        "What computes {{ $labels.model }} is busy nine tenths of the time: the next peak waits or is refused.",
        Example(
            {'inferry_busy_seconds_total{model="m", version="1"}': "0+58x40 2320x40",
             'inferry_instances{model="m", version="1"}': "1x80"},
            30, 60,
        ),
    ),
    Alert(
        "InferryQueueFills",
        "max by (namespace, model, lane) (inferry_queue_rows / on (namespace, pod, instance, model, version) "
        "group_left inferry_queue_limit_rows) > 0.8",
        "2m", "warning", "The queue of {{ $labels.model }} ({{ $labels.lane }}) is four fifths full.",
        Example(
            {'inferry_queue_rows{instance="a", model="m", version="1", lane="interactive"}': "900x10 3x20",
             'inferry_queue_limit_rows{instance="a", model="m", version="1"}': "1024x30"},
            5, 15,
        ),
    ),
    Alert(
        "InferryQueueWaits", "max by (namespace, model, lane) (inferry_queue_oldest_age_seconds) > 1", "2m", "warning",
        "Requests for {{ $labels.model }} wait for more than a second.",
        Example({'inferry_queue_oldest_age_seconds{model="m", version="1", lane="bulk"}': "3x10 0x20"}, 5, 15),
    ),
    Alert(
        "InferryConnectionsFull", "inferry_open_connections / inferry_open_connections_limit > 0.9", "5m", "warning",
        "{{ or $labels.pod $labels.instance }} has nine tenths of the connections that it takes: further ones are closed.",
        Example(
            {'inferry_open_connections{pod="a"}': "95x10 5x20", 'inferry_open_connections_limit{pod="a"}': "100x30"}, 8, 15
        ),
    ),
    Alert(
        "InferryModelNotLoaded",
        _lately_failed("inferry_last_load_timestamp_seconds"), "", "warning",
        "A version of {{ $labels.model }} did not load; RepositoryIndex and the log say why.",
        Example(_moment("inferry_last_load_timestamp_seconds"), 10, 40),
    ),
    Alert(
        "InferryWrongAnswers",
        _lately_failed("inferry_last_self_check_timestamp_seconds"), "", "critical",
        "{{ $labels.model }} answered its golden samples wrongly while serving.",
        Example(_moment("inferry_last_self_check_timestamp_seconds"), 10, 40),
    ),
    Alert(
        "InferryNotPolled",
        'time() - max by (namespace, pod, instance) (inferry_last_poll_timestamp_seconds{outcome="done"}) > 600',
        "5m", "warning", "{{ or $labels.pod $labels.instance }} has not looked at its repository for ten minutes: new versions do not come.",
        Example(
            {'inferry_last_poll_timestamp_seconds{instance="a", outcome="done"}': "0x30 1860+60x30",
             'inferry_last_poll_timestamp_seconds{instance="b", outcome="done"}': "0+60x60"},
            20, 40,
        ),
    ),
    Alert(
        "InferryHangs", "sum by (namespace, kind) (increase(inferry_hangs_total[15m])) > 0", "", "critical",
        "Something took far too long: {{ $labels.kind }}.",
        Example(_counter("inferry_hangs_total", 'kind="model_run"'), 10, 40),
    ),
    Alert(
        "InferryDeviceErrors", "sum by (namespace, kind) (increase(inferry_device_errors_total[15m])) > 0", "",
        "critical", "A GPU reported errors of the kind {{ $labels.kind }}.",
        Example(_counter("inferry_device_errors_total", 'kind="lost"'), 10, 40),
    ),
    Alert(
        "InferryCertificateEnds", "inferry_tls_not_after_timestamp_seconds - time() < 7 * 86400", "1h", "warning",
        "The {{ $labels.file }} of {{ or $labels.pod $labels.instance }} ends within a week.",
        Example({'inferry_tls_not_after_timestamp_seconds{file="certificate", pod="a"}': "600000x100 9000000x60"}, 90, 110),
    ),
    Alert(
        "InferryDrainStuck",
        "time() - (inferry_drain_ends_timestamp_seconds > 0) > 0", "1m", "critical",
        "{{ or $labels.pod $labels.instance }} should have ended by now, and still answers for its metrics.",
        Example({'inferry_drain_ends_timestamp_seconds{pod="a"}': "0x5 600x20 stale"}, 15, 40),
    ),
)  # fmt: skip


def groups() -> list[dict[str, Any]]:
    """Both groups, as Prometheus reads them."""
    return [
        {"name": "inferry-recorded", "rules": list(recorded())},
        {"name": "inferry", "rules": [_rule(alert) for alert in ALERTS]},
    ]


def _rule(alert: Alert) -> dict[str, Any]:
    lasts = {"for": alert.lasts} if alert.lasts else {}
    return {
        "alert": alert.name,
        "expr": alert.expr,
        **lasts,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "runbook": f"deploy/observability/runbook.md#{alert.name.lower()}",
        },
    }


def examples(rules_file: str) -> dict[str, Any]:
    """A test file for `promtool test rules`: each alert fires once, and stops."""
    return {
        "rule_files": [rules_file],
        "evaluation_interval": "1m",
        "tests": [
            {
                "name": alert.name,
                "interval": "1m",
                "input_series": [
                    {"series": series, "values": values} for series, values in alert.example.series.items()
                ],
                "promql_expr_test": [
                    _count(alert, alert.example.fires_at, 1),
                    _count(alert, alert.example.quiet_at, 0),
                ],
            }
            for alert in ALERTS
        ],
    }


def _count(alert: Alert, minute: int, firing: int) -> dict[str, Any]:
    """How many alerts of that name fire, whatever their labels."""
    samples = [{"labels": "{}", "value": firing}] if firing else []
    return {
        "expr": f'count(ALERTS{{alertname="{alert.name}", alertstate="firing"}})',
        "eval_time": f"{minute}m",
        "exp_samples": samples,
    }
