"""Rules of queries: every series that alerts and autoscalers ask for is on a running server's page, labels too."""

import re
from collections.abc import Iterator

from manifests.bundle import Bundle, label
from manifests.facts import ServerFacts
from manifests.rules_durations import EXPECTED, duration_s

FROM_SCRAPING = frozenset({"namespace", "pod", "container", "job", "instance", "node", "service", "endpoint"})
_OTHERS = re.compile(  # of Prometheus itself, of Kubernetes, and of what stands beside servers: nobody here knows them
    r"(up|ALERTS|ALERTS_FOR_STATE|scrape_\w+"
    r"|(apiserver|certmanager|container|DCGM|envoy|istio|keda|kube|kubelet|machine|nginx|node|prometheus)_\w+)"
)
_WORDS = frozenset(
    {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "bool", "offset", "inf"}
)
_LABELS_OF_GROUP = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_TEXT = re.compile(r"""\"(?:[^"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`[^`]*`""")
_RANGE = re.compile(r"\[[^\]]*\]|(?<![\w:])\d[\w.]*")  # [5m], and numbers and durations: 0.5, 1e3, 5m
_SPAN = re.compile(r"\[([^\]]*)\]|\boffset\s+-?([^\s)\]]+)")  # [5m], [1h:1m], offset 5m; numbers are seconds
_SERIES = re.compile(r"([A-Za-z_:][\w:]*)\s*(?:\{([^}]*)\})?(\s*\()?")


def metric_faults(bundle: Bundle, facts: ServerFacts) -> Iterator[str]:
    """Queries for series or labels that no server has."""
    recorded = {
        rule["record"]
        for one in bundle.every("PrometheusRule")
        for group in one["spec"].get("groups", [])
        for rule in group.get("rules", [])
        if "record" in rule
    }
    for where, query in _queries(bundle):
        for fault in query_faults(query, facts.metrics | dict.fromkeys(recorded, frozenset())):
            yield f"{where}: {fault}"


def _queries(bundle: Bundle) -> Iterator[tuple[str, str]]:
    for one in bundle.every("PrometheusRule"):
        for group in one["spec"].get("groups", []):
            for rule in group.get("rules", []):
                yield f"{label(one)}, {rule.get('alert') or rule.get('record')}", rule["expr"]
    for one in bundle.every("ScaledObject"):
        for trigger in one["spec"]["triggers"]:
            if trigger["type"] == "prometheus":
                yield f"{label(one)}, trigger {trigger.get('name')}", trigger["metadata"]["query"]
    for one in bundle.every("HorizontalPodAutoscaler"):
        for metric in one["spec"].get("metrics", []):
            if metric["type"] == "Pods":
                yield f"{label(one)}", metric["pods"]["metric"]["name"]


def query_faults(query: str, metrics: dict[str, frozenset[str]]) -> Iterator[str]:
    """The series and labels of one PromQL query that are unknown.

    Args:
        query: as Prometheus reads it.
        metrics: the series that there are, with their labels.
    """
    bare = _RANGE.sub("", _TEXT.sub('""', query))
    grouped = {name.strip() for match in _LABELS_OF_GROUP.finditer(bare) for name in match[1].split(",")}
    series = [
        (name, labels or "")
        for name, labels, call in _SERIES.findall(_LABELS_OF_GROUP.sub(" ", bare))
        if not call and name not in _WORDS
    ]
    if not series:
        yield f"the query {query!r} asks for no series"
    if any(_TEXT.sub("", query).count(first) != _TEXT.sub("", query).count(last) for first, last in ("()", "[]", "{}")):
        yield f"the query {query!r} opens another number of brackets than it closes"
    for text in _spans(query):
        yield f"the query {query!r} has the time {text!r}; {EXPECTED}"
    known = set(FROM_SCRAPING)
    for name, matchers in series:
        if name not in metrics and _OTHERS.fullmatch(name):
            known |= grouped
            continue
        if name not in metrics:
            yield f"no server has the metric {name}"
            continue
        known |= metrics[name]
        for matcher in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
            if matcher not in metrics[name] | FROM_SCRAPING:
                yield f"{name} has no label {matcher}; it has {sorted(metrics[name])}"
    for name in grouped - known - {""}:
        yield f"no series of {query!r} has the label {name}"


def _spans(query: str) -> Iterator[str]:
    """The ranges, resolutions and offsets of a query that are no durations."""
    for match in _SPAN.finditer(_TEXT.sub('""', query)):
        first, _, resolution = (match[1] or match[2] or "").partition(":")
        for text in (first.strip(), *filter(None, (resolution.strip(),))):
            if duration_s(text) is None and not re.fullmatch(r"\d+(\.\d+)?", text):
                yield text
