"""What a template is made of: objects as kustomize renders them, with conditions and values in places."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Node = Any  # a scalar, a dict, a list, or one of the classes below, anywhere in them


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()
"""No such key, no such element, no such object."""


@dataclass(frozen=True)
class Expr:
    """A scalar with template actions in it.

    Attributes:
        text: as it stands in the template.
    """

    text: str


@dataclass(frozen=True)
class Yaml:
    """A value of the chart, as it is.

    Attributes:
        value: the action's expression.
    """

    value: str


@dataclass(frozen=True)
class Splice:
    """More keys of a mapping (as a key), or more elements of a list (as an element), from a value of the chart.

    Attributes:
        value: the action's expression; nothing is added where it is empty.
    """

    value: str


@dataclass(frozen=True)
class Choice:
    """The first whose condition holds, or else the last.

    Attributes:
        options: conditions as template expressions, each with what stands there then.
        otherwise: what stands there when none holds.
    """

    options: tuple[tuple[str, Node], ...]
    otherwise: Node = ABSENT


def weave(base: Node, variants: Sequence[tuple[str, Node]]) -> Node:
    """One tree that is `base`, or where a condition holds the variant of that condition.

    Args:
        base: a tree of dicts, lists and scalars, or ABSENT.
        variants: conditions with the trees that hold then; of several in one place the last one counts.
    """
    if all(tree == base for _, tree in variants):
        return base
    trees = [base, *(tree for _, tree in variants)]
    if all(isinstance(tree, dict) for tree in trees):
        keys = dict.fromkeys(key for tree in trees for key in tree)
        return {key: weave(_at(base, key), [(test, _at(tree, key)) for test, tree in variants]) for key in keys}
    if all(isinstance(tree, list) and names(tree) for tree in trees):
        tables = [dict(zip(names(tree), tree, strict=True)) for tree in trees]
        tests = [test for test, _ in variants]
        keys = dict.fromkeys(key for table in tables for key in table)
        return [
            weave(_at(tables[0], key), [(test, _at(table, key)) for test, table in zip(tests, tables[1:], strict=True)])
            for key in keys
        ]
    options = tuple((test, tree) for test, tree in reversed(variants) if tree != base)
    return Choice(options, base)


def _at(tree: dict[Any, Node], key: object) -> Node:
    return tree.get(key, ABSENT)


def names(elements: list[Node]) -> list[str]:
    """What tells the elements of a list apart, or nothing where they have no names of their own."""
    found = [one.get("mountPath") or one.get("name") if isinstance(one, dict) else None for one in elements]
    return [str(name) for name in found] if None not in found and len(set(found)) == len(found) else []
