"""What tests change in rendered manifests, to plant a mistake."""

import copy
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from manifests.bundle import Bundle, Manifest

POLICY = """
secretGenerator:
  - name: inferry-access
    literals: ['policy.toml=anonymous = []']
    options:
      disableNameSuffixHash: true
      labels: {app.kubernetes.io/name: inferry, app.kubernetes.io/component: server}
"""
"""Of a kustomization: the Secret that the component `tokens` mounts, with a policy that lets nobody in."""

Change = Callable[[Bundle], object]


def planted(bundle: Bundle, change: Change) -> Bundle:
    """A changed copy."""
    copied = Bundle(copy.deepcopy(bundle.objects))
    change(copied)
    return copied


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


def policy(text: str) -> Change:
    """Another access policy."""

    def change(bundle: Bundle) -> None:
        one(bundle, "Secret").update(data={"policy.toml": b64encode(text.encode()).decode()})

    return change


def traced(*ports: Manifest) -> Change:
    """Traces for a collector that has a name, and a policy for these ports."""

    def change(bundle: Bundle) -> None:
        data(bundle).update(INFERRY_TRACE_ENDPOINT="http://collector.monitoring:4317")
        spec(bundle, "NetworkPolicy").update(egress=[{"ports": list(ports)}])

    return change
