"""Values of the wrong kind, or taken away, are refused by the chart's schema, each by its path and in plain words."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema
import pytest

from chart.generate import schema
from chart.helm import RefusedError, template
from chart.values import VALUES, nested

WRONG: Sequence[tuple[dict[str, Any], str]] = (
    ({"replica": 3}, "'replica'"),
    ({"replicas": "three"}, "replicas"),
    ({"replicas": -1}, "replicas"),
    ({"settings.max_batchsize": 64}, "max_batchsize"),
    ({"settings.max_batch_size": "many"}, "max_batch_size"),
    ({"settings.grpc_address": "0.0.0.0:9000"}, "grpc_address"),
    ({"settings.log_level": "loud"}, "log_level"),
    ({"models.from": "ftp"}, "models/from"),
    ({"models.bucket.url": "bucket"}, "url"),
    ({"image.digest": "sha256:1"}, "digest"),
    ({"autoscaling.kind": "both"}, "autoscaling/kind"),
    ({"tls": True}, "tls"),
    ({"gateway.canary.weight": 101}, "weight"),
    ({"settings.max_batch_size": 0}, "max_batch_size"),
    ({"settings.max_queue_delay_us": 60000001}, "max_queue_delay_us"),
    ({"settings.access_policy": "policy.toml"}, "access_policy"),
    ({"settings.access_policy": "/models/../etc/policy.toml"}, "access_policy"),
    ({"settings.trace_endpoint": "collector:4317"}, "trace_endpoint"),
    ({"settings.front_ends": 65}, "front_ends"),
    ({"autoscaling.cpuPercent": 95}, "cpuPercent"),
    ({"disruptionBudget.maxUnavailable": "abc"}, "maxUnavailable"),
    ({"disruptionBudget.maxUnavailable": "120%"}, "maxUnavailable"),
    ({"disruptionBudget.maxUnavailable": 0}, "maxUnavailable"),
    ({"disruptionBudget.minAvailable": 1}, "minAvailable"),
    ({"image.repository": "inferry-server:0.1.0"}, "image/repository"),
    ({"image.registry": "https://registry.example.com"}, "image/registry"),
    ({"image.repository": "<your-image>"}, "image/repository"),
    ({"image.tag": "0.1.0@sha256"}, "image/tag"),
    ({"models.from": "image", "models.image.reference": "models"}, "reference"),
    ({"models.claim.accessModes": ["ReadWriteSome"]}, "accessModes"),
    ({"models.claim.size": "5GB"}, "size"),
    ({"models.claim.size": ""}, "size"),
    ({"resources": {"requests": {"cpu": "2"}}}, "limits"),
    ({"resources": {"limits": {"cpu": "2", "memory": "2 GiB"}}}, "memory"),
    ({"strategy": {"type": "Rolling"}}, "strategy"),
    ({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "half"}}}, "maxSurge"),
    ({"podLabels": {"team": "vision & friends"}}, "podLabels"),
    ({"tls.enabled": True, "tls.issuer": {"kind": "Issuer"}}, "issuer"),
    ({"volumes": [{"emptyDir": {}}]}, "name"),
    ({"volumeMounts": [{"name": "tmp", "mountPath": "etc"}]}, "mountPath"),
    ({"gateway.hostnames": ["models example"]}, "hostnames"),
    ({"networkPolicy.monitoringNamespace": ""}, "monitoringNamespace"),
    ({"models.bucket.url": "ftp://models/production"}, "url"),
    ({"models.bucket.url": "gcs://models/production"}, "url"),  # the client knows gs:// alone
    ({"tolerations": [{"key": "gpu", "operator": "Exsts"}]}, "tolerations/0/operator"),
    ({"tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedul"}]}, "tolerations/0/effect"),
    ({"tolerations": [{"key": "gpu", "operater": "Exists"}]}, "operater"),
    ({"settings": None}, "'settings'"),
    ({"tls.enabled": None}, "'enabled'"),
    ({"gateway.canary": None}, "'canary'"),
    ({"replicas": None}, "'replicas'"),
    ({"settings.max_batch_size": None}, "got null"),
)
"""Values by path, and what is said of the last one."""


def paths_of(values: Mapping[str, Any]) -> set[str]:
    """Of the values, and of all that holds them."""
    return {".".join(path.split(".")[:depth]) for path in values for depth in range(1, path.count(".") + 2)}


def groups() -> Iterator[list[tuple[dict[str, Any], str]]]:
    """Wrong values that can be given together: Helm says all that is wrong with them at once."""
    left = list(WRONG)
    while left:
        group: list[tuple[dict[str, Any], str]] = []
        for case in left:
            leaves = {path for values, _ in group for path in values}
            held = {path for values, _ in group for path in paths_of(values)}
            if not (paths_of(case[0]) & leaves or case[0].keys() & held):
                group.append(case)
        left = [case for case in left if case not in group]
        yield group


@pytest.mark.parametrize("group", list(groups()), ids=lambda group: f"{len(group)} values")
def test_a_wrong_value_is_refused_and_named(group: list[tuple[dict[str, Any], str]]) -> None:
    with pytest.raises(RefusedError) as refused:
        template({path: value for values, _ in group for path, value in values.items()})
    said = re.findall(r"^ *- (at '([^']*)': .*)$", str(refused.value), re.MULTILINE)
    for values, expected in group:
        wrong = f"/{list(values)[-1].replace('.', '/')}"
        assert [line for line, at in said if expected in line and (wrong.startswith(at) or at.startswith(wrong))], (
            values, said,
        )  # fmt: skip


def test_no_value_that_has_a_default_can_be_taken_away() -> None:
    """`--set NAME=null` takes it out of what the templates see, who would end in words of their own."""
    whole = nested({value.path: value.default for value in VALUES if value.default is not None})
    validator = jsonschema.Draft7Validator(schema())
    assert list(validator.iter_errors(whole)) == []
    for path in sorted(paths_of({value.path: None for value in VALUES if value.default is not None})):
        *keys, last = path.split(".")
        without = nested({value.path: value.default for value in VALUES if value.default is not None})
        at = without
        for key in keys:
            at = at[key]
        at.pop(last)
        assert [error.message for error in validator.iter_errors(without)] == [f"{last!r} is a required property"]
