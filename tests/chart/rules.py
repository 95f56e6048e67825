"""Every rule of the chart, in the order in which what is wrong is told."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chart.rule import Rule
from chart.rules_access import TLS_RULES, TOKEN_RULES
from chart.rules_models import MODEL_RULES
from chart.rules_mounts import MOUNT_RULES
from chart.rules_network import GATEWAY_RULES, REACH_RULES
from chart.rules_pods import POD_RULES
from chart.rules_resources import RESOURCE_RULES
from chart.rules_settings import SETTING_RULES, TIME_RULES

RULES = (
    *POD_RULES,
    *MODEL_RULES,
    *RESOURCE_RULES,
    *TLS_RULES,
    *TOKEN_RULES,
    *REACH_RULES,
    *GATEWAY_RULES,
    *MOUNT_RULES,
    *TIME_RULES,
    *SETTING_RULES,
)
"""The rules that are the same whatever the manifests have."""


def rules(reserved: Mapping[str, tuple[str, Sequence[str]]]) -> Iterator[Rule]:
    """Every rule.

    Args:
        reserved: of each value that adds to what the chart writes, the key that names its elements (empty: they are
            a mapping's), and the names that are taken.
    """
    for value, (key, names) in reserved.items():
        yield _taken(value, key, names)
    yield from RULES


def _taken(value: str, key: str, names: Sequence[str]) -> Rule:
    one = f'(trimSuffix "/" .{key})' if key else "."
    rest: dict[str, Any] = {"name": "tmp"} if key == "mountPath" else {"emptyDir": {}}
    element, free = rest | {key: names[0]}, rest | {key: "free" if key == "name" else "/free"}
    beside = {"monitoring.enabled": True} if value.startswith("monitoring.") else {}
    return Rule(
        f"has {one} (list {' '.join(json.dumps(name) for name in names)})",
        f"{value} has %v, which the chart writes itself and its other objects go by: expected another",
        (one,),
        {value: [element] if key else {names[0]: "other"}, **beside},
        {value: [free] if key else {"example.com/free": "other"}, **beside},
        each=f"$v.{value}" if key else f"keys $v.{value} | sortAlpha",
    )
