"""Rules of pod security: the restricted standard, a root that nobody writes to, limits, images of one version."""

from collections.abc import Iterator

from manifests.bundle import Bundle, Manifest, Template

_RESTRICTED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim"} | {
    "projected", "secret",
}  # fmt: skip
_RESTRICTED_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_OF_THE_NODE = ("hostNetwork", "hostPID", "hostIPC")
_REFUSED = {"privileged": False, "procMount": "Default"}  # what may be stated, if anything


def security_faults(bundle: Bundle) -> Iterator[str]:
    """Pods below the restricted pod security standard, or with a writable root, or without limits."""
    for template in bundle.templates():
        yield from (f"{template.owner}: {fault}" for fault in _pod_faults(template))
        for container in template.containers:
            for fault in _container_faults(template, container):
                yield f"{template.owner}, container {container['name']}: {fault}"


def _pod_faults(template: Template) -> Iterator[str]:
    yield from (f"{key} is true: it shares the node's" for key in _OF_THE_NODE if template.spec.get(key))
    if sysctls := template.spec.get("securityContext", {}).get("sysctls"):
        yield f"sysctls are {[one['name'] for one in sysctls]}; expected none"
    for volume in template.spec.get("volumes", []):
        if not set(volume) - {"name"} <= _RESTRICTED_VOLUMES:
            yield f"the volume {volume['name']} is of a kind that the restricted standard refuses"
        if "image" in volume and not _is_pinned(volume["image"].get("reference", "")):
            yield f"the volume {volume['name']}: the image {volume['image'].get('reference')} has no tag of a version"
    if template.spec.get("automountServiceAccountToken") is not False and not template.is_kserves:
        yield "a token of the Kubernetes API is mounted"


def _container_faults(template: Template, container: Manifest) -> Iterator[str]:
    own = container.get("securityContext", {})
    together = template.spec.get("securityContext", {}) | own
    if not together.get("runAsNonRoot") or not together.get("runAsUser"):
        yield "it may run as root"
    if together.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "no seccomp profile"
    for key, value in _RESTRICTED_CONTAINER.items():
        if own.get(key) != value:
            yield f"securityContext.{key} is {own.get(key)}; expected {value}"
    for key, default in _REFUSED.items():
        if own.get(key, default) != default:
            yield f"securityContext.{key} is {own[key]}; expected {default}"
    yield from (
        f"it takes the node's port {port['hostPort']}" for port in container.get("ports", []) if "hostPort" in port
    )
    if "memory" not in container.get("resources", {}).get("limits", {}):
        yield "no memory limit"
    if not _is_pinned(container.get("image", "")):
        yield f"the image {container.get('image', '')} has no tag of a version"


def _is_pinned(image: str) -> bool:
    """Whether an image has a digest, or a tag that is not `latest`."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return bool(digest) or (bool(tag) and tag != "latest")
