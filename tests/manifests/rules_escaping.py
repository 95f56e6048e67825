"""Rules of what holds for all servers: a monitor, a network policy or a disruption budget leaves none of them out."""

from collections.abc import Iterator

from manifests.bundle import Bundle, label, takes

_FIELDS = {"PodMonitor": "selector", "NetworkPolicy": "podSelector", "PodDisruptionBudget": "selector"}


def escape_faults(bundle: Bundle) -> Iterator[str]:
    """Servers, as those of a canary, without what others have: nothing would tell that they are not held."""
    pods = [one for one in bundle.templates() if one.servers and one.owner.startswith(("Deployment", "StatefulSet"))]
    for kind, field in _FIELDS.items():
        held: dict[str, str] = {}
        for one in bundle.every(kind):
            held |= {pod.owner: label(one) for pod in pods if takes(one["spec"].get(field) or {}, pod.labels)}
        for pod in pods:
            if held and pod.owner not in held:
                other, holder = next(iter(held.items()))
                yield f"{pod.owner}: no {kind} takes its pods, as {holder} does those of {other}"
