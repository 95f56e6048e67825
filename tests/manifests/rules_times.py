"""Rules of times: a start, a drain and a probe have as long as the server's settings may take."""

import re
from collections.abc import Iterator

from inferry_server.settings.settings import Settings
from manifests.bundle import RUNTIMES, Bundle, Manifest, Template

CLOSING_S = 5  # what a process needs to end after its last answer
_DEFAULT_GRACE_S = 30
_SLEEP = re.compile(r"\bsleep\s+(\d+(?:\.\d+)?)([smh]?)")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600}


def time_faults(bundle: Bundle, template: Template, container: Manifest, settings: Settings) -> Iterator[str]:
    """Times of the pod that are shorter than those of the server in it."""
    yield from _grace_faults(template, container, settings)
    startup_s, readiness_s = _seconds(container.get("startupProbe")), _seconds(container.get("readinessProbe"))
    if startup_s < settings.model_load_timeout_s:
        yield f"the startup probe gives up after {startup_s:g} s; a model may take {settings.model_load_timeout_s:g}"
    if readiness_s >= settings.drain_delay_s:
        yield f"an unready server is believed after {readiness_s:g} s, and drain_delay_s is {settings.drain_delay_s:g}"
    if _seconds(container.get("livenessProbe")) <= settings.drain_timeout_s:
        yield "the liveness probe may kill it while it finishes what it accepted"
    deployment = bundle.find("Deployment", template.name) if template.kind == "Deployment" else None
    deadline_s = 600 if deployment is None else deployment["spec"].get("progressDeadlineSeconds", 600)
    if deployment is not None and deadline_s <= startup_s:
        yield f"progressDeadlineSeconds is {deadline_s}; a pod may take {startup_s:g} s to start"
    if settings.max_connection_age_s is None and template.kind != "Pod":
        yield "max_connection_age_s is not set: clients keep to the pods that they have met, and new ones idle"


def _grace_faults(template: Template, container: Manifest, settings: Settings) -> Iterator[str]:
    """A runtime's own has no grace period: an InferenceService states it, or has Kubernetes' default."""
    stated = {} if template.kind in RUNTIMES else template.spec
    if template.kind in RUNTIMES and "terminationGracePeriodSeconds" in template.spec:
        stated = template.spec
    grace_s = stated.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_S)
    drain_s = settings.drain_delay_s + settings.drain_timeout_s
    hook = container.get("lifecycle", {}).get("preStop")
    if hook:
        hook_s = hook_seconds(hook)
        if hook_s is None:
            yield f"nobody knows how long the preStop hook {next(iter(hook))} takes, of {grace_s} s until it is killed"
            return
        drain_s += hook_s
    if grace_s < drain_s + CLOSING_S:
        yield f"terminationGracePeriodSeconds is {grace_s}; the drain takes {drain_s:g} s and {CLOSING_S} to close"


def hook_seconds(hook: Manifest) -> float | None:
    """How long a preStop hook takes; None: nobody knows."""
    if "sleep" in hook:
        return float(hook["sleep"]["seconds"])
    found = _SLEEP.findall(" ".join(hook.get("exec", {}).get("command", [])))
    return sum(float(number) * _UNITS_S[unit] for number, unit in found) if found else None


def _seconds(probe: Manifest | None) -> float:
    """Until a probe that fails from the start is believed."""
    if probe is None:
        return 0.0
    delay = probe.get("initialDelaySeconds", 0)
    found: float = delay + probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
    return found
