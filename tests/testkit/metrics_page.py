"""A server's metrics, as Prometheus would read them."""

import threading
import urllib.request
from collections.abc import Callable

from inferry_server.app import Server

Metrics = dict[str, float]
"""The page's figures by series, labels included: `name{label="value"}`."""

_LOOK_AGAIN_S, _LOOKS = 0.02, 500


def read_metrics(server: Server) -> Metrics:
    """The page as it is now."""
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def total(metrics: Metrics, name: str) -> float:
    """A metric, summed over all its labels."""
    return sum(value for key, value in metrics.items() if key.startswith(name + "{"))


def wait_for_metrics(server: Server, condition: Callable[[Metrics], bool], what: str) -> Metrics:
    """The metrics, once they are as they should be."""
    pause = threading.Event()
    for _ in range(_LOOKS):
        if condition(metrics := read_metrics(server)):
            return metrics
        pause.wait(_LOOK_AGAIN_S)
    raise AssertionError(f"waited in vain for {what}")


def wait_for_value(server: Server, name: str, value: float) -> Metrics:
    """The metrics, once a series has a value."""
    return wait_for_metrics(server, lambda metrics: metrics.get(name) == value, f"{name} to be {value}")
