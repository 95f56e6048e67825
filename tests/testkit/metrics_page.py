"""A server's metrics, as Prometheus would read them."""

import urllib.request
from collections.abc import Callable

from inferry_server.app import Server
from testkit.waiting import wait_until

Metrics = dict[str, float]
"""The page's figures by series, labels included: `name{label="value"}`."""

_LOOK_AGAIN_S = 0.02  # a page is no small thing to make


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
    metrics: Metrics = {}

    def holds() -> bool:
        metrics.clear()
        metrics.update(read_metrics(server))
        return condition(metrics)

    wait_until(holds, what, look_again_s=_LOOK_AGAIN_S)
    return metrics


def wait_for_value(server: Server, name: str, value: float) -> Metrics:
    """The metrics, once a series has a value."""
    return wait_for_metrics(server, lambda metrics: metrics.get(name) == value, f"{name} to be {value}")
