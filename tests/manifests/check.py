"""Everything that is checked of objects that are applied together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from manifests.bundle import Bundle, Manifest
from manifests.facts import ServerFacts
from manifests.needs import Need, needs
from manifests.rules_access import access_faults
from manifests.rules_cluster import cluster_faults
from manifests.rules_devices import device_faults
from manifests.rules_durations import duration_faults
from manifests.rules_escaping import escape_faults
from manifests.rules_found import found_faults
from manifests.rules_gateway import gateway_faults
from manifests.rules_hostnames import hostname_faults
from manifests.rules_limits import limit_faults
from manifests.rules_metrics import metric_faults
from manifests.rules_names import name_faults
from manifests.rules_objects import port_faults, selector_faults
from manifests.rules_programs import program_faults
from manifests.rules_references import reference_faults
from manifests.rules_refused import refused_faults
from manifests.rules_scaling import scaling_faults
from manifests.rules_security import security_faults
from manifests.rules_server import server_faults
from manifests.rules_words import word_faults
from manifests.schemas import IMAGE_VOLUMES_SINCE, VERSIONS, schema_faults, shape_faults


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes:
        wrong: what contradicts itself, a sentence each, in the order of the rules.
        needs: objects that are named and are not there; the cluster may have them.
        broken: some object is not of the shape of its kind, and nothing further was asked.
    """

    wrong: list[str]
    needs: list[Need]
    broken: bool = False


def examine(bundle: Bundle, facts: ServerFacts, *, versions: Sequence[str] = VERSIONS) -> Findings:
    """Check objects that are applied together.

    Args:
        bundle: what would be applied.
        facts: of a running server.
        versions: of Kubernetes, whose schemas are asked.
    """
    broken = shape_faults(bundle)
    if not broken:
        broken = [fault for version in applicable(bundle, versions) for fault in schema_faults(bundle, version)]
    if broken:
        return Findings(
            list(dict.fromkeys(broken)), [], broken=True
        )  # what is not of the right shape cannot be asked further
    found: Iterable[str] = (
        *found_faults(bundle),
        *name_faults(bundle),
        *word_faults(bundle),
        *refused_faults(bundle),
        *selector_faults(bundle),
        *port_faults(bundle),
        *reference_faults(bundle),
        *hostname_faults(bundle),
        *security_faults(bundle),
        *server_faults(bundle, facts),
        *scaling_faults(bundle),
        *limit_faults(bundle),
        *cluster_faults(bundle),
        *escape_faults(bundle),
        *device_faults(bundle),
        *gateway_faults(bundle),
        *access_faults(bundle),
        *program_faults(bundle),
        *metric_faults(bundle, facts),
        *duration_faults(bundle),
    )
    named = needs(bundle)
    generated = [f"{one.note(bundle)}: expected disableNameSuffixHash" for one in named if one.is_generated(bundle)]
    return Findings(list(dict.fromkeys([*found, *generated])), [one for one in named if not one.is_generated(bundle)])


def faults(bundle: Bundle, facts: ServerFacts, *, versions: Sequence[str] = VERSIONS) -> list[str]:
    """What is wrong where everything that is named must be among the objects, a sentence each.

    Args:
        bundle: what would be applied.
        facts: of a running server.
        versions: of Kubernetes, whose schemas are asked.
    """
    found = examine(bundle, facts, versions=versions)
    return [*found.wrong, *(need.fault() for need in found.needs)]


def asked_paths(bundle: Bundle) -> set[str]:
    """The paths that probes and monitors ask servers for."""
    probes = [
        container.get(f"{kind}Probe", {})
        for template in bundle.templates()
        for container in template.servers
        for kind in ("startup", "readiness", "liveness")
    ]
    noted = [template.metadata.get("annotations") or {} for template in bundle.templates()]
    monitored = {end.get("path", "/metrics") for one in bundle.every("PodMonitor") for end in _endpoints(one)}
    monitored |= {one.get("prometheus.io/path", "/metrics") for one in noted}
    return monitored | {probe["httpGet"].get("path", "/") for probe in probes if "httpGet" in probe}


def _endpoints(monitor: Manifest) -> list[Manifest]:
    found: list[Manifest] = monitor["spec"].get("podMetricsEndpoints", [])
    return found


def applicable(bundle: Bundle, versions: Sequence[str]) -> list[str]:
    """The versions that know what is used: image volumes are younger than the rest."""
    volumes = [volume for template in bundle.templates() for volume in template.spec.get("volumes", [])]
    newer = any("image" in volume for volume in volumes)
    known = [one for one in versions if not newer or int(one.partition(".")[2]) >= IMAGE_VOLUMES_SINCE]
    return known if known or not versions else [VERSIONS[-1]]  # none would be a check that nothing fails
