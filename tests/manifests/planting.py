"""What tests change in rendered manifests, to plant a mistake."""

from collections.abc import Callable
from typing import Any

from manifests.bundle import Bundle, Manifest

Change = Callable[[Bundle], object]


def one(bundle: Bundle, kind: str, name: str = "") -> Manifest:
    return next(found for found in bundle.every(kind) if not name or found["metadata"]["name"] == name)


def pod(bundle: Bundle) -> Manifest:
    found: Manifest = one(bundle, "Deployment")["spec"]["template"]["spec"]
    return found


def container(bundle: Bundle) -> Manifest:
    found: Manifest = pod(bundle)["containers"][0]
    return found


def data(bundle: Bundle) -> dict[str, str]:
    found: dict[str, str] = one(bundle, "ConfigMap")["data"]
    return found


def spec(bundle: Bundle, kind: str, name: str = "") -> Manifest:
    found: Manifest = one(bundle, kind, name)["spec"]
    return found


def rules(bundle: Bundle) -> list[Manifest]:
    found: list[Manifest] = spec(bundle, "PrometheusRule")["groups"][0]["rules"]
    return found


def probe(kind: str, **changed: Any) -> Change:
    return lambda b: container(b)[f"{kind}Probe"].update(changed)


def http(kind: str, **changed: Any) -> Change:
    return lambda b: container(b)[f"{kind}Probe"]["httpGet"].update(changed)


def without(kind: str) -> Change:
    return lambda b: b.objects.remove(one(b, kind))


def traced(*ports: Manifest) -> Change:
    """Traces for a collector that has a name, and a policy for these ports."""

    def change(bundle: Bundle) -> None:
        data(bundle).update(INFERRY_TRACE_ENDPOINT="http://collector.monitoring:4317")
        spec(bundle, "NetworkPolicy").update(egress=[{"ports": list(ports)}])

    return change
