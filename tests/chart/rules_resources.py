"""Rules of what a server computes on: whole cores of its own, memory for what may wait, and a GPU that is used."""

from typing import Any

from chart.rule import Rule


def _gib(memory: str, **more: str) -> dict[str, Any]:
    amounts = {"cpu": "2", "memory": memory} | more
    return {"limits": amounts, "requests": amounts}


_GPU = {"nvidia.com/gpu": "1"}

RESOURCE_RULES = (
    Rule(
        "and $v.gpu.enabled $v.resources (not $f.gpus)",
        "gpu.enabled is true and resources.limits is %v: expected a whole number of nvidia.com/gpu, or of a part such "
        "as nvidia.com/mig-1g.10gb, among them",
        ("toJson $v.resources.limits",),
        {"gpu.enabled": True, "resources": _gib("8Gi")},
        {"gpu.enabled": True, "resources": _gib("8Gi", **_GPU)},
    ),
    Rule(
        "and $f.gpus (not $v.gpu.enabled)",
        "resources.limits is %v and gpu.enabled is false: a GPU for the image without CUDA; expected gpu.enabled true",
        ("toJson $v.resources.limits",),
        {"resources": _gib("8Gi", **_GPU)},
        {"resources": _gib("8Gi")},
    ),
    Rule(
        'and (not $v.gpu.enabled) (has (toString $s.provider) (list "cuda" "tensorrt"))',
        "settings.provider is %v and gpu.enabled is false: the server would end, as there is no GPU; expected "
        "gpu.enabled true, or another provider",
        ("$s.provider",),
        {"settings.provider": "cuda"},
        {"settings.provider": "cuda", "gpu.enabled": True},
    ),
    Rule(
        'and $v.gpu.enabled (eq (toString $s.provider) "cpu")',
        "settings.provider is %v and gpu.enabled is true: the GPU would idle; expected gpu.enabled false, or another "
        "provider",
        ("$s.provider",),
        {"settings.provider": "cpu", "gpu.enabled": True},
        {"settings.provider": "cpu"},
    ),
    Rule(
        "and $v.resources.requests (ne (toJson $v.resources.requests) (toJson $v.resources.limits))",
        "resources.requests is %v and resources.limits is %v: a server counts on the cores of its limit; expected "
        "the same, or limits alone",
        ("toJson $v.resources.requests", "toJson $v.resources.limits"),
        {"resources": {**_gib("2Gi"), "requests": {"cpu": "1", "memory": "2Gi"}}},
        {"resources": {"limits": {"cpu": "2", "memory": "2Gi"}}},
    ),
    Rule(
        'and $v.resources (not (regexMatch "^[1-9][0-9]*(000m)?$" (toString $f.cores)))',
        "resources.limits.cpu is %v: a server computes on whole cores; expected a whole number",
        ("$f.cores",),
        {"resources": {"limits": {"cpu": "1500m", "memory": "2Gi"}}},
        {"resources": {"limits": {"cpu": "2000m", "memory": "2Gi"}}},
    ),
    Rule(
        "lt (float64 $f.memoryBytes) (float64 $f.leastBytes)",
        "resources.limits.memory is %v and settings.max_queue_bytes is %v: at rest, two lanes of a model and pictures "
        "to decode may take %v MiB; expected more memory, or less that waits",
        ("$f.memory", 'include "inferry.text" $s.max_queue_bytes', "divf $f.leastBytes 1048576 | floor | int64"),
        {"settings.max_queue_bytes": 1 << 30},
        {"settings.max_queue_bytes": 1 << 30, "resources": _gib("4Gi")},
    ),
)
