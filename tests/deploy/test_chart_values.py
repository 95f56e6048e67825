"""Values that are wrong, alone or together, are refused with what was expected; those next to them are right."""

from collections.abc import Mapping
from random import Random
from typing import Any

import jsonschema
import pytest

from chart.generate import schema
from chart.helm import RefusedError, template
from chart.place import place, reserved
from chart.rule import Rule
from chart.rules import RULES, rules
from chart.settings_schema import PLACED, setting_defaults
from chart.source import woven_objects
from inferry_server.errors import StartError
from inferry_server.settings.settings import RANGES, Settings
from inferry_server.settings.sources import read_settings
from manifests.check import faults
from manifests.facts import IMAGE_ENVIRONMENT, ServerFacts
from manifests.schemas import VERSIONS

COLLECTOR = "http://collector.monitoring:4317"


def message_of(values: Mapping[str, Any]) -> str:
    """What Helm says as it refuses the values; empty: it renders them."""
    try:
        template(values)
    except RefusedError as refused:
        return str(refused)
    return ""


def wrong_with(values: Mapping[str, Any], facts: ServerFacts) -> list[str]:
    """The faults of what is rendered, but for what the cluster has and the values only name."""
    found = faults(template(values), facts, versions=VERSIONS[-1:])
    return [one for one in found if "there is no" not in one]


def check(rule: Rule, facts: ServerFacts) -> None:
    refused = message_of(rule.planted)
    whole, constant = refused.replace("\n", " "), max(rule.message.replace("%q", "%v").split("%v"), key=len)
    assert "these values cannot be together" in whole
    assert constant.strip() in whole, refused
    assert "%!" not in refused
    assert wrong_with(rule.right, facts) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda one: one.message[:60])
def test_values_that_cannot_be_together_are_refused_and_those_next_to_them_are_right(
    rule: Rule, facts: ServerFacts
) -> None:
    check(rule, facts)


def test_what_the_chart_writes_itself_cannot_be_added_again(facts: ServerFacts) -> None:
    taken = reserved(place(woven_objects()))
    assert taken.keys() == {"podLabels", "podAnnotations", "volumes", "volumeMounts", "monitoring.labels"}
    assert {"app.kubernetes.io/name", "app.kubernetes.io/component", "app.kubernetes.io/instance"} <= {
        *taken["podLabels"][1]
    }
    assert taken["volumeMounts"] == ("mountPath", ["/access", "/models", "/tls", "/tmp"])  # noqa: S108
    for rule in [one for one in rules(taken) if one not in RULES]:
        check(rule, facts)


@pytest.mark.parametrize(
    "toleration",
    [
        {"key": "gpu", "operator": "Exists", "value": "a100"},
        {"key": "gpu", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 60},
        {"operator": "Equal", "value": "a100"},
    ],
)
def test_a_toleration_that_kubernetes_refuses_is_refused(toleration: dict[str, Any]) -> None:
    assert "tolerations has {" in message_of({"tolerations": [toleration]})


def test_all_that_is_wrong_is_said_at_once() -> None:
    refused = message_of({"autoscaling.kind": "hpa", "autoscaling.minReplicas": 20, "settings.drain_delay_s": 1})
    assert "autoscaling.minReplicas is 20" in refused
    assert "settings.drain_delay_s is 1" in refused


def settings_of(values: Mapping[str, Any]) -> Settings:
    """As the server would read them in the pod."""
    own = {name.partition(".")[2]: value for name, value in values.items() if name.startswith("settings.")}
    texts = {f"INFERRY_{name.upper()}": str(value) for name, value in own.items()}
    return read_settings({}, environment=IMAGE_ENVIRONMENT | texts)


def refusal(values: Mapping[str, Any]) -> str:
    """What the server says as it refuses the settings; empty: it takes them."""
    try:
        settings_of(values)
    except StartError as error:
        return str(error)
    return ""


def is_taken(values: Mapping[str, Any]) -> bool:
    return not refusal(values)


def test_a_setting_may_have_the_range_that_the_server_lets_it_have() -> None:
    closed = schema()["properties"]["settings"]
    for name, (least, most) in RANGES.items():
        whole = closed["properties"][name]["type"] == "integer"
        step = 1 if whole else least / 2 or 0.5
        for number in (least, most, least - step, most + max(step, 1)):
            value = int(number) if whole else float(number)
            errors = list(jsonschema.Draft7Validator(closed).iter_errors({name: value}))
            outside = not least <= value <= most
            assert bool(errors) == outside, (name, value)
            said = refusal({f"settings.{name}": value})
            assert outside == (f"setting {name} is" in said and " to " in said), (name, value, said)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("front_ends", ["auto", "0", "64", 3], ["65", "-1", "two", "", 65]),
        ("http_hosts", ["a", "a.b, c-d.e", "A.B."], ["a:80", "", "a,,b", "https://a"]),
        ("trace_endpoint", ["http://a:1", "https://[::1]:4317"], ["a:1", "http://a", "http://a:0", "ftp://a:1"]),
    ],
)
def test_a_text_may_be_what_the_server_lets_it_be(name: str, right: list[Any], wrong: list[Any]) -> None:
    closed = schema()["properties"]["settings"]
    for value in (*right, *wrong):
        errors = list(jsonschema.Draft7Validator(closed).iter_errors({name: value}))
        assert (not errors) == (value in right) == is_taken({f"settings.{name}": value}), value


def test_settings_of_the_table_are_those_of_the_server() -> None:
    known = {*schema()["properties"]["settings"]["properties"], *PLACED}
    assert known == set(Settings.__dataclass_fields__)
    assert read_settings({}, environment=IMAGE_ENVIRONMENT | {
        f"INFERRY_{name.upper()}": str(value) for name, value in setting_defaults().items()
    }) == read_settings({}, environment=IMAGE_ENVIRONMENT)  # fmt: skip


MIXED: dict[str, tuple[Any, ...]] = {  # settings that the server compares with one another
    "max_batch_size": (1, 8, 64, 4096), "max_request_rows": (1, 32, 4096), "max_queue_size": (1, 1024, 8192),
    "max_queue_delay_us": (0, 500, 5000), "latency_objective_ms": (0.4, 5, 50), "max_queue_bytes": (1 << 20, 1 << 27),
    "max_total_queue_bytes": (0, 1 << 24, 1 << 28), "response_compression": ("none", "gzip"), "tf32": (False, True),
    "compressed_requests": (False, True), "provider": ("auto", "cpu"), "trace_sample_ratio": (0.01, 0.5),
    "trace_endpoint": (COLLECTOR,), "prefer_nhwc": ("auto", "off"), "gpu_mem_limit_bytes": (0, 1 << 30),
}  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_the_chart_refuses_the_settings_that_the_server_refuses(seed: int) -> None:
    random = Random(seed)
    names = random.sample(sorted(MIXED), 4)
    values = {f"settings.{name}": random.choice(MIXED[name]) for name in names}
    assert (message_of(values) == "") == is_taken(values), (values, message_of(values))


def test_a_collector_of_traces_is_reached_through_the_policy_that_names_it(facts: ServerFacts) -> None:
    traced = {"settings.trace_endpoint": COLLECTOR}
    egress = [{"ports": [{"port": 4317}, {"port": 53, "protocol": "UDP"}]}]
    for values in (
        {}, {"networkPolicy.enabled": True, "networkPolicy.egress": egress},
        {"models.from": "bucket", "models.bucket.url": "s3://models/production", "models.bucket.egress": egress},
    ):  # fmt: skip
        assert faults(template(traced | values), facts, versions=VERSIONS[-1:]) == []
