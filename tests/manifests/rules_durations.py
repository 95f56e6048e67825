"""Rules of durations: each is written as whoever reads it wants it. The published schemas take any text."""

import re
from collections.abc import Iterator
from typing import Any

from manifests.bundle import Bundle, Manifest, label

_PROMETHEUS = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?")
_UNITS_S = (31_536_000, 604_800, 86_400, 3600, 60, 1, 0.001)
_GO = re.compile(r"(\d+(\.\d+)?(ns|us|\u00b5s|ms|s|m|h))+")
_ENDPOINTS = {"PodMonitor": "podMetricsEndpoints", "ServiceMonitor": "endpoints"}
EXPECTED = "expected a duration of Prometheus, as 90s or 1h30m"


def duration_faults(bundle: Bundle) -> Iterator[str]:
    """Times of alerts, of scrapes and of certificates that nobody would read."""
    for one in bundle.every("PrometheusRule"):
        for group in one["spec"].get("groups", []):
            yield from (f"{label(one)}, {fault}" for fault in _group_faults(group))
    for one in bundle.every(*_ENDPOINTS):
        for end in one["spec"].get(_ENDPOINTS[one["kind"]], []):
            yield from (f"{label(one)}: {fault}" for fault in _scrape_faults(end))
    for one in bundle.every("Certificate"):
        for key in ("duration", "renewBefore"):
            text = one["spec"].get(key, "1h")
            if not _GO.fullmatch(str(text)):
                yield f"{label(one)}: {key} is {text!r}; expected hours, minutes and seconds, as 2160h"


def duration_s(text: Any) -> float | None:
    """Seconds of what Prometheus takes for a duration: whole numbers with units, the largest first; None: another."""
    if text == "0":
        return 0.0
    match = _PROMETHEUS.fullmatch(str(text))
    if match is None or not match[0]:
        return None
    return sum(int(number) * unit for number, unit in zip(match.groups(), _UNITS_S, strict=True) if number)


def _group_faults(group: Manifest) -> Iterator[str]:
    name, timed = f"group {group['name']}", list[tuple[str, str, Any]]()
    timed += [(name, key, group[key]) for key in ("interval", "query_offset") if key in group]
    for rule in group.get("rules", []):
        name = rule.get("alert") or rule.get("record")
        timed += [(name, key, rule[key]) for key in ("for", "keep_firing_for") if key in rule]
    for name, key, text in timed:
        if duration_s(text) is None:
            yield f"{name}: {key} is {text!r}; {EXPECTED}"


def _scrape_faults(end: Manifest) -> Iterator[str]:
    known = {}
    for key in ("interval", "scrapeTimeout"):
        known[key] = duration_s(end.get(key, "0"))
        if known[key] is None:
            yield f"{key} is {end[key]!r}; {EXPECTED}"
    interval_s, timeout_s = known["interval"], known["scrapeTimeout"]
    if interval_s and timeout_s and timeout_s > interval_s:
        yield f"scrapeTimeout is {end['scrapeTimeout']}, and interval {end['interval']}: expected no more"
