"""Rules of the check itself: it has found what it is to look at, for where nothing is found nothing is wrong."""

from collections.abc import Iterator

from manifests.bundle import KSERVE_CONTAINER, RUNTIMES, Bundle, Manifest, Template, image_name, label
from manifests.rules_programs import PARSERS


def found_faults(bundle: Bundle) -> Iterator[str]:
    """Objects that are said to run the server, and in which none was found; nothing that could be checked at all."""
    templates = list(bundle.templates())
    if not templates:
        yield "there is no pod among these objects, and so nothing of a server to check"
    for template in templates:
        if not template.servers and (template.is_labelled or template.is_kserves):
            names = [one["name"] for one in template.spec["containers"]]
            known = f"expected {_expected(template)}"
            yield f"{template.owner}: none of its containers {names} is known for the server; {known}"
    for runtime in bundle.every(*RUNTIMES):
        names = [one["name"] for one in runtime["spec"]["containers"]]
        if KSERVE_CONTAINER not in names:
            yield f"{label(runtime)}: KServe takes the container {KSERVE_CONTAINER}, and it has {names}"
    for service in bundle.every("InferenceService"):
        yield from (f"{label(service)}: {fault}" for fault in _runtime_faults(bundle, service))
    for rule in bundle.every("PrometheusRule"):
        if not any(group.get("rules") for group in rule["spec"].get("groups", [])):
            yield f"{label(rule)}: it has no rules"


def _expected(template: Template) -> str:
    if template.is_kserves:
        return f"the name {KSERVE_CONTAINER}"
    return "an image inferry-server, or the name server"


def _runtime_faults(bundle: Bundle, service: Manifest) -> Iterator[str]:
    """What an InferenceService asks of its runtime, and that has not."""
    model = service["spec"]["predictor"].get("model")
    if model is None:
        yield "its predictor names no model, and so no runtime; what it runs was not checked"
        return
    named = model.get("runtime")
    runtimes = [one for one in bundle.every(*RUNTIMES) if named in (None, one["metadata"]["name"])]
    wanted = model["modelFormat"]
    fitting = [one for one in runtimes if _takes(one, wanted, named)]
    if runtimes and not fitting:
        known = [known for one in runtimes for known in one["spec"].get("supportedModelFormats", [])]
        yield f"no runtime here takes the model format {wanted}; they take {known}"
    if named is not None and not runtimes and bundle.every(*RUNTIMES):
        yield f"it names the runtime {named}, and here there is {', '.join(sorted(bundle.names(*RUNTIMES)))}"
    protocol = model.get("protocolVersion")
    for runtime in fitting:
        known = runtime["spec"].get("protocolVersions", [])
        if protocol is not None and protocol not in known:
            yield f"it asks for the protocol {protocol}, and {label(runtime)} has {known}"
    if named is None and not runtimes:
        yield "it names no runtime, and none is here: what it runs was not checked"


def _takes(runtime: Manifest, wanted: Manifest, named: str | None) -> bool:
    return any(
        one["name"] == wanted["name"]
        and wanted.get("version") in (None, one.get("version"))
        and (named is not None or one.get("autoSelect"))
        for one in runtime["spec"].get("supportedModelFormats", [])
    )


def unchecked(bundle: Bundle) -> Iterator[str]:
    """Containers whose arguments nobody here understands, a sentence each: they may be right."""
    for template in bundle.templates():
        for container in template.containers:
            if container in template.servers or image_name(container) in PARSERS:
                continue
            yield f"{template.owner}, container {container['name']}: {image_name(container)} is no program of Inferry's"
