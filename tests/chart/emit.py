"""Templates as text."""

import json
import re
from collections.abc import Iterator
from typing import Any

from chart.nodes import ABSENT, Choice, Expr, Node, Splice, Yaml

_FIRST = (
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "mountPath",
)  # of a mapping; then the others, those with conditions last
_PLAIN = re.compile(r"[A-Za-z/][\w./-]*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}  # that YAML takes for something else


def emit(node: Node) -> str:
    """A whole template.

    Args:
        node: an object, or a choice of objects.
    """
    return "\n".join(_block(node, 0)) + "\n"


def _block(node: Node, depth: int) -> Iterator[str]:
    """The lines of what stands alone: an object, or a value below its key."""
    match node:
        case Choice():
            yield from _branches(node, lambda chosen: _block(chosen, depth))
        case dict():
            for key in sorted(node, key=lambda one: _rank(one, node[one])):
                yield from _entry(key, node[key], depth)
        case list():
            for element in node:
                yield from _element(element, depth)
        case _:
            raise TypeError(f"expected a mapping or a list, not {node!r}")


def _rank(key: Any, node: Node) -> tuple[int, bool]:
    return _FIRST.index(key) if key in _FIRST else len(_FIRST), isinstance(key, Splice) or isinstance(node, Choice)


def _entry(key: Any, node: Node, depth: int) -> Iterator[str]:
    space = " " * depth
    match node:
        case _ if isinstance(key, Splice):
            yield from _splice(key, depth)
        case Choice():
            yield from _branches(node, lambda chosen: _entry(key, chosen, depth))
        case dict() | list() if node:
            children = [*node.items()] if isinstance(node, dict) else [("", child) for child in node]
            if all(isinstance(name, Splice) or _may_be_absent(child) for name, child in children):
                raise ValueError(f"all of {key} is conditional, and so the key would stand there without a value")
            yield f"{space}{_scalar(key)}:"
            yield from _block(node, depth + 2)
        case Yaml():
            yield f"{space}{_scalar(key)}:"
            yield f"{space}  {{{{- toYaml {node.value} | nindent {depth + 2} }}}}"
        case _:
            yield f"{space}{_scalar(key)}: {_scalar(node)}"


def _may_be_absent(node: Node) -> bool:
    match node:
        case Choice():
            return any(_may_be_absent(one) for one in (*(chosen for _, chosen in node.options), node.otherwise))
        case _:
            return node is ABSENT or isinstance(node, Splice)


def _element(node: Node, depth: int) -> Iterator[str]:
    space = " " * depth
    match node:
        case Splice():
            yield from _splice(node, depth)
        case Choice():
            yield from _branches(node, lambda chosen: _element(chosen, depth))
        case dict():
            lines = list(_block(node, depth + 2))
            if lines[0].lstrip().startswith("{{-"):
                raise ValueError(f"an element cannot begin with what is conditional: {node}")
            yield f"{space}- {lines[0].lstrip()}"
            yield from lines[1:]
        case _:
            yield f"{space}- {_scalar(node)}"


def _splice(node: Splice, depth: int) -> Iterator[str]:
    space = " " * depth
    yield f"{space}{{{{- with {node.value} }}}}"
    yield f"{space}{{{{- toYaml . | nindent {depth} }}}}"
    yield f"{space}{{{{- end }}}}"


def _branches(node: Choice, lines: Any) -> Iterator[str]:
    tests = [f"({test})" if " " in test else test for test, _ in node.options]
    if all(chosen is ABSENT for _, chosen in node.options):
        yield f"{{{{- if not {tests[0] if len(tests) == 1 else '(or ' + ' '.join(tests) + ')'} }}}}"
        yield from lines(node.otherwise)
        yield "{{- end }}"
        return
    for place, (test, chosen) in enumerate(node.options):
        yield f"{{{{- {'else if' if place else 'if'} {test} }}}}"
        if chosen is not ABSENT:
            yield from lines(chosen)
    if node.otherwise is not ABSENT:
        yield "{{- else }}"
        yield from lines(node.otherwise)
    yield "{{- end }}"


def _scalar(node: Node) -> str:
    match node:
        case Expr():
            return node.text
        case dict() | list() | bool() | int() | float() | None:
            return json.dumps(node)
        case str() if _PLAIN.fullmatch(node) and node.lower() not in _WORDS:
            return node
        case str():  # actions that are another program's, as Prometheus' in annotations, are no actions here
            return json.dumps(node, ensure_ascii=False).replace("{{", '{{ "{{" }}')
        case _:
            raise TypeError(f"expected a scalar, not {node!r}")
