"""Rules of devices: a server that demands a GPU asks its node for one."""

from collections.abc import Iterator

from manifests.bundle import Bundle, image_name
from manifests.rules_server import servers

_GPU_IMAGES = ("inferry-server-gpu", "inferry-server-tensorrt")
_GPU_PROVIDERS = ("cuda", "tensorrt")
_NVIDIA = "nvidia.com/"  # gpu, or a profile of MIG


def device_faults(bundle: Bundle) -> Iterator[str]:
    """Servers that would end at once on whatever node they come to: no device is mounted without a limit for it."""
    for server in servers(bundle):
        limits = server.container.get("resources", {}).get("limits", {})
        demands = image_name(server.container) in _GPU_IMAGES or server.settings.provider in _GPU_PROVIDERS
        if demands and not any(name.startswith(_NVIDIA) for name in limits):
            yield (
                f"{server.template.owner}, container {server.container['name']}: it demands a GPU, and its limits "
                f"{limits} ask for none; expected {_NVIDIA}gpu"
            )
