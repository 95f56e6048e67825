"""What a rule is: values that cannot be together, each with an example and its neighbour that is right.

A rule has a template expression that holds where something is wrong. The expressions may use

    $v   the values
    $d   every setting of the server that has a default: that
    $s   the same, over it what the manifests set, over that the values
    $f   what follows from the values: `inferry.facts` in templates/_facts.tpl
    .    the element, of a rule that is asked of each element of a list

What one value alone may be is in `values.schema.json`, by `values.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What is refused.

    Attributes:
        wrong: an expression that holds then.
        message: what came and what was expected, with %v for each of `came`.
        came: expressions.
        planted: values by path that are refused.
        right: values next to them that are not.
        each: the list whose elements are asked in turn; empty: the rule is asked once.
    """

    wrong: str
    message: str
    came: Sequence[str]
    planted: Mapping[str, Any]
    right: Mapping[str, Any]
    each: str = ""


POLICY_MOUNTED: Mapping[str, list[Any]] = {
    "volumes": [{"name": "policy", "secret": {"secretName": "policy"}}],
    "volumeMounts": [{"name": "policy", "mountPath": "/policy", "readOnly": True}],
}
"""Values of examples: a Secret of the cluster's, at /policy."""

COLLECTOR = "http://collector.monitoring:4317"
"""Of examples: where traces go."""
