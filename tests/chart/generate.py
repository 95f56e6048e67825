"""Every file of the chart that is made: templates from kustomize's objects, values and their schema from the table."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from chart.emit import emit
from chart.nodes import Choice, Node
from chart.place import manifest_facts, place, reserved
from chart.rules import rules
from chart.rules_template import template
from chart.settings_schema import setting_defaults
from chart.source import woven_objects
from chart.values import VALUES, Value
from manifests.bundle import ROOT

CHART = ROOT / "deploy" / "helm" / "inferry"
BY_HAND = ("templates/_helpers.tpl", "templates/_facts.tpl", "templates/NOTES.txt", ".helmignore")

_MADE = "made by `make chart` from deploy/k8s"
_HEAD = f"{{{{- /* {_MADE} */}}}}\n"
_SETTINGS = "ConfigMap/inferry-server"


def chart_files() -> dict[str, str]:
    """Contents by path in the chart."""
    woven = woven_objects()
    facts = manifest_facts(woven)
    objects = place(woven)
    settings = objects[_SETTINGS].pop("data")
    defined = (("manifestSettings", settings), ("manifestFacts", facts), ("serverDefaults", setting_defaults()))
    files = {
        "Chart.yaml": _chart(),
        "values.yaml": _values(),
        "values.schema.json": json.dumps(schema(), indent=2) + "\n",
        "templates/_settings.tpl": _HEAD + "\n".join(_define(name, node) for name, node in defined),
        "templates/_rules.tpl": _HEAD + template(list(rules(reserved(objects)))),
    }
    for name, node in objects.items():
        files[f"templates/{_file(name)}"] = _template(name, node)
    return files


def write(folder: Path) -> None:
    """All files, and none that was made before and is no more."""
    files = chart_files()
    (folder / "templates").mkdir(parents=True, exist_ok=True)
    for path in folder.rglob("*"):
        if path.is_file() and str(path.relative_to(folder)) not in (*files, *BY_HAND):
            path.unlink()
    for name, text in files.items():
        (folder / name).write_text(text)


def _file(name: str) -> str:
    kind, _, own = name.partition("/")
    rest = own.removeprefix("inferry").strip("-")
    return f"{kind.lower()}-{rest}.yaml" if rest else f"{kind.lower()}.yaml"


def _define(name: str, node: Node) -> str:
    return f'{{{{- define "inferry.{name}" -}}}}\n{emit(node)}{{{{- end }}}}\n'


def _template(name: str, node: Node) -> str:
    text = emit(node)
    if name == _SETTINGS:
        return _HEAD + text + 'data:\n  {{- include "inferry.settings" $ | nindent 2 }}\n'
    if name.startswith("Deployment/"):
        return _HEAD + '{{- include "inferry.rules" $ }}\n' + text
    if isinstance(node, Choice):
        return _HEAD.replace("*/}}", "*/ -}}") + text.removeprefix("\n")
    return _HEAD + text


def _chart() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = {
        "apiVersion": "v2", "name": "inferry", "type": "application", "version": project["version"],
        "appVersion": project["version"], "kubeVersion": ">=1.27.0-0",
        "description": "Serves ONNX image classifiers over gRPC with dynamic batching",
    }  # fmt: skip
    return f"# {_MADE}\n" + yaml.safe_dump(chart, sort_keys=False)


def _values() -> str:
    lines = [f"# {_MADE}; the table is tests/chart/values.py.", ""]
    seen: list[str] = []
    for value in VALUES:
        *keys, last = value.path.split(".")
        common = next(
            (n for n, (a, b) in enumerate(zip(keys, seen, strict=False)) if a != b), min(len(keys), len(seen))
        )
        if not keys or common == 0:
            lines += [""] if lines[-1] else []
        lines += [f"{'  ' * depth}{keys[depth]}:" for depth in range(common, len(keys))]
        space = "  " * len(keys)
        lines += [f"{space}# {line}" for line in value.doc.splitlines()]
        lines.append(f"{space}{last}: {json.dumps(value.default)}")
        seen = keys
    return "\n".join(lines) + "\n"


def schema() -> dict[str, Any]:
    """Of values.yaml: nothing but what is in the table, and all of it; `--set NAME=null` would take it away."""
    tree: dict[str, Any] = _closed()
    for value in VALUES:
        *keys, last = value.path.split(".")
        at = tree
        for key in keys:
            at["required"] = sorted({*at["required"], key})
            at = at["properties"].setdefault(key, _closed())
        at["properties"][last] = _described(value)
        if value.default is not None:
            at["required"] = sorted({*at["required"], last})
    tree["properties"]["global"] = {"type": "object"}  # Helm's own, for charts inside charts
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart inferry"} | tree


def _closed() -> dict[str, Any]:
    return {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def _described(value: Value) -> Mapping[str, Any]:
    return {"description": value.doc.replace("\n", " ")} | dict(value.schema)
