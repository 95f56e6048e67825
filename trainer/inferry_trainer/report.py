"""`report.html`: what a run came to, on one page that needs nothing but itself."""

from collections.abc import Mapping, Sequence
from html import escape

from inferry_trainer.arrays import Int64Array
from inferry_trainer.charts import line_chart
from inferry_trainer.description import RunDescription
from inferry_trainer.evaluate import Evaluation
from inferry_trainer.progress import format_seconds
from inferry_trainer.records import EpochRecord

_STYLE = """
:root { color-scheme: light dark; --text: #1d2733; --soft: #5b6b7b; --line: #dfe5ea; --back: #ffffff;
  --first: #0b6bcb; --second: #d9730d; --right: 11 107 203; --wrong: 217 48 37; }
@media (prefers-color-scheme: dark) { :root { --text: #e6ebf0; --soft: #9aa9b8; --line: #33404c; --back: #151b21;
  --first: #5aa9f8; --second: #f0a04b; --right: 90 169 248; --wrong: 255 107 96; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
  max-width: 980px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .2rem 0 1rem; } .soft { color: var(--soft); }
.figures { display: flex; flex-wrap: wrap; gap: 2rem; margin: 1.5rem 0; }
.figures b { display: block; font-size: 1.7rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; } .chart { flex: 1 1 420px; min-width: 0; }
.chart .grid { stroke: var(--line); } .chart .tick { fill: var(--soft); font-size: 11px; }
.chart .title { fill: var(--text); font-size: 14px; font-weight: 600; }
.chart polyline { fill: none; stroke-width: 2; } .chart polyline.first { stroke: var(--first); }
.chart polyline.second { stroke: var(--second); } .chart circle.first { fill: var(--first); }
.chart circle.second { fill: var(--second); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.matrix td { width: 3.1rem; min-width: 2.2rem; height: 2rem; text-align: center; border: 1px solid var(--line); }
.matrix th { font-weight: 600; padding: .2rem .6rem; } .matrix tbody th { text-align: right; white-space: nowrap; }
.facts th { text-align: left; font-weight: 400; color: var(--soft); padding-right: 2rem; vertical-align: top; }
.facts td { overflow-wrap: anywhere; }
"""


def render_report(
    run: RunDescription, history: Sequence[EpochRecord], evaluation: Evaluation, metrics: Mapping[str, float]
) -> str:
    """A whole HTML page: figures, learning curves, confusion matrix, origin."""
    title = f"{run.config.dataset}: test accuracy {evaluation.accuracy:.2%}"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(run.config.dataset)}</h1>",
            f'<p class="soft">recipe {escape(run.config.recipe)}, seed {run.config.seed}, {escape(run.created_at)}</p>',
            _figures(evaluation, metrics),
            "<h2>Learning curves</h2>",
            _curves(history),
            "<h2>Confusion matrix of the test set</h2>",
            '<p class="soft">A row is what an image shows, a column what the model said.</p>',
            _confusion_table(evaluation.confusion, run.labels),
            "<h2>Where it came from</h2>",
            _facts(run, metrics),
            "</body></html>\n",
        ]
    )


def _figures(evaluation: Evaluation, metrics: Mapping[str, float]) -> str:
    figures = {
        "test accuracy": f"{evaluation.accuracy:.2%}",
        "test loss": f"{evaluation.loss:.4f}",
        "mistakes": f"{evaluation.images - evaluation.correct} of {evaluation.images:,}",
        "validation accuracy": f"{metrics['validation_accuracy']:.2%}",
        "training time": format_seconds(metrics["train_wall_s"]),
    }
    return '<div class="figures">' + "".join(f"<div><b>{v}</b>{escape(k)}</div>" for k, v in figures.items()) + "</div>"


def _curves(history: Sequence[EpochRecord]) -> str:
    loss = {"training": [r.loss for r in history], "validation": [r.val_loss for r in history]}
    accuracy = {"training": [r.accuracy for r in history], "validation": [r.val_accuracy for r in history]}
    return f'<div class="charts">{line_chart("Loss", loss)}{line_chart("Accuracy", accuracy)}</div>'


def _confusion_table(confusion: Int64Array, labels: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in labels)
    rows = []
    for index, (label, counts) in enumerate(zip(labels, confusion.tolist(), strict=True)):
        cells = "".join(_cell(count, sum(counts), right=column == index) for column, count in enumerate(counts))
        rows.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table class="matrix"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(count: int, row_total: int, *, right: bool) -> str:
    """Shaded by its share of the row; mistakes much stronger, so that single ones are seen."""
    if count == 0:
        return "<td></td>"
    share = count / row_total
    opacity = 0.1 + 0.5 * share if right else min(0.15 + 4 * share, 0.9)
    color = "right" if right else "wrong"
    return f'<td style="background: rgb(var(--{color}) / {opacity:.2f})">{count}</td>'


def _facts(run: RunDescription, metrics: Mapping[str, float]) -> str:
    facts = {
        "images": f"{run.train_images:,} training, {run.validation_images:,} validation, {run.test_images:,} test",
        "data": f"{run.dataset_source}, sha256 {run.dataset_sha256}",
        "parameters": f"{int(metrics['parameters']):,}",
        "settings": ", ".join(f"{name} {value}" for name, value in vars(run.config).items()),
        "libraries": ", ".join(f"{name} {version}" for name, version in run.library_versions.items()),
        "git revision": run.git_revision or "none",
    }
    rows = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in facts.items())
    return f'<table class="facts"><tbody>{rows}</tbody></table>'
