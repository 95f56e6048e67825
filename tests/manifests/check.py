"""Everything that is checked of objects that are applied together."""

from collections.abc import Iterable, Sequence

from manifests.bundle import Bundle
from manifests.facts import ServerFacts
from manifests.rules_cluster import cluster_faults
from manifests.rules_metrics import metric_faults
from manifests.rules_objects import port_faults, reference_faults, security_faults, selector_faults
from manifests.rules_programs import program_faults
from manifests.rules_server import server_faults
from manifests.schemas import IMAGE_VOLUMES_SINCE, VERSIONS, schema_faults


def faults(bundle: Bundle, facts: ServerFacts, *, versions: Sequence[str] = VERSIONS) -> list[str]:
    """What is wrong, a sentence each, in the order of the rules.

    Args:
        bundle: what would be applied.
        facts: of a running server.
        versions: of Kubernetes, whose schemas are asked.
    """
    broken = [fault for version in applicable(bundle, versions) for fault in schema_faults(bundle, version)]
    if broken:
        return list(dict.fromkeys(broken))  # what is not of the right shape cannot be asked further
    found: Iterable[str] = (
        *selector_faults(bundle),
        *port_faults(bundle),
        *reference_faults(bundle),
        *security_faults(bundle),
        *server_faults(bundle, facts),
        *cluster_faults(bundle),
        *program_faults(bundle),
        *metric_faults(bundle, facts),
    )
    return list(found)


def asked_paths(bundle: Bundle) -> set[str]:
    """The paths that probes and monitors ask servers for."""
    probes = [
        container.get(f"{kind}Probe", {})
        for template in bundle.templates()
        for container in template.servers
        for kind in ("startup", "readiness", "liveness")
    ]
    monitored = {end["path"] for one in bundle.every("PodMonitor") for end in one["spec"]["podMetricsEndpoints"]}
    return monitored | {probe["httpGet"]["path"] for probe in probes if "httpGet" in probe}


def applicable(bundle: Bundle, versions: Sequence[str]) -> list[str]:
    """The versions that know what is used: image volumes are younger than the rest."""
    volumes = [volume for template in bundle.templates() for volume in template.spec.get("volumes", [])]
    newer = any("image" in volume for volume in volumes)
    return [one for one in versions if not newer or int(one.partition(".")[2]) >= IMAGE_VOLUMES_SINCE]
