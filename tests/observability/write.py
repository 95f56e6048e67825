"""The files that are made, as text: deploy/observability, and the rules as the Prometheus operator has them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from observability.dashboard import ROWS, dashboard
from observability.rules import groups

ROOT = Path(__file__).parents[2]
FOLDER = Path("deploy/observability")
_MADE = "# Made by `make observability` from tests/observability; alerts are explained in {}runbook.md.\n"


def made_files() -> dict[Path, str]:
    """Every file by its path from the root."""
    return {
        FOLDER / "dashboard.json": json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n",
        FOLDER / "rules.yaml": _MADE.format("") + _yaml({"groups": groups()}),
        FOLDER / "questions.md": "\n".join(_questions()) + "\n",
        Path("deploy/k8s/components/monitoring/prometheusrule.yaml"): _MADE.format("deploy/observability/")
        + _yaml(_operators_rule()),
    }


def write(root: Path = ROOT) -> None:
    """Write every file."""
    for path, text in made_files().items():
        (root / path).write_text(text, encoding="utf-8")


def _operators_rule() -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "inferry", "app.kubernetes.io/component": "server"}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "inferry-server", "labels": labels},
        "spec": {"groups": groups()},
    }


def _questions() -> Iterator[str]:
    yield "# Which query answers what"
    yield ""
    yield "The panels of `dashboard.json`, a question each. In Grafana `$model` and `$__rate_interval` are filled in;"
    yield "elsewhere write `.*` and `5m`."
    for title, row in ROWS:
        yield f"\n## {title}\n"
        for panel in row:
            yield f"**{panel.title}.** {panel.question}\n"
            yield from (f"    {query.expr}\n" for query in panel.queries)


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, width=10_000, allow_unicode=True)
    return text
