"""Rules of resources: cores that are its own, memory for what may wait, and a GPU for what computes on one."""

import re
from collections.abc import Iterator
from typing import Any

from inferry_server.settings.settings import Settings
from manifests.bundle import Manifest, image_name

AT_REST_MIB = 150  # the goal; 101 resident were measured with a small model, 141 with MNIST's network
_UNITS = {"": 1.0, "m": 1e-3} | {
    unit: base**power
    for units, base in ((("k", "M", "G", "T", "P", "E"), 1e3), (("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 2.0**10))
    for power, unit in enumerate(units, 1)
}
_GPU = "nvidia.com/"


def resource_faults(container: Manifest, settings: Settings) -> Iterator[str]:
    """Amounts that are not the server's own, or too little for its settings."""
    resources: dict[str, Any] = container.get("resources", {})
    limits = resources.get("limits", {})
    requests = limits | resources.get("requests", {})  # as Kubernetes fills them in
    yield from _gpu_faults(container, limits, settings)
    if not _are_same(limits, requests) or "memory" not in limits:
        yield f"requests {requests} are not the limits {limits}: it counts on cores that may not be its own"
        return
    if not re.fullmatch(r"[1-9]\d*(000m)?", str(limits.get("cpu", "1"))):
        yield f"the CPU limit {limits['cpu']} is not a whole number of cores, and threads are"
    least = (AT_REST_MIB << 20) + 3 * settings.max_queue_bytes
    try:
        memory = quantity(str(limits["memory"]))
    except ValueError as error:
        yield f"the memory limit: {error}"
        return
    if memory < least:
        yield (
            f"the memory limit is {limits['memory']}; at rest, two lanes of one model and pictures to decode may take "
            f"{least >> 20} MiB (max_queue_bytes is {settings.max_queue_bytes})"
        )


def _gpu_faults(container: Manifest, limits: Manifest, settings: Settings) -> Iterator[str]:
    has_gpu = any(name.startswith(_GPU) and str(amount) not in ("", "0") for name, amount in limits.items())
    if has_gpu and (settings.provider == "cpu" or image_name(container) == "inferry-server"):
        yield f"it has a GPU and leaves it idle (image {container.get('image')}, provider {settings.provider})"


def _are_same(limits: Manifest, requests: Manifest) -> bool:
    """Whether both are the same amounts, however they are written: 2 or 2000m, 2Gi or 2048Mi."""
    if limits.keys() != requests.keys():
        return False
    try:
        return all(quantity(str(limits[name])) == quantity(str(requests[name])) for name in limits)
    except ValueError:
        return limits == requests


def quantity(text: str) -> float:
    """Kubernetes' way to write bytes.

    Raises:
        ValueError: another text.
    """
    if re.fullmatch(r"\d+(\.\d+)?[eE][+-]?\d+", text):
        return float(text)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", text)
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"expected a quantity as 512Mi, not {text!r}")
    return float(match[1]) * _UNITS[match[2]]
