"""`report.html`: what a run came to, on one page that needs nothing but itself."""

from collections.abc import Mapping, Sequence
from html import escape

from inferry_trainer.arrays import Int64Array
from inferry_trainer.evaluation.charts import line_chart, reliability_diagram
from inferry_trainer.evaluation.evaluate import Evaluation, wilson_interval
from inferry_trainer.evaluation.mistakes import Mistake
from inferry_trainer.evaluation.pictures import data_address
from inferry_trainer.evaluation.report_style import STYLE
from inferry_trainer.training.description import RunDescription
from inferry_trainer.training.progress import format_seconds
from inferry_trainer.training.records import EpochRecord


def render_report(
    run: RunDescription,
    history: Sequence[EpochRecord],
    evaluation: Evaluation,
    metrics: Mapping[str, float],
    mistakes: Sequence[Mistake] = (),
) -> str:
    """A whole HTML page: figures, learning curves, classes, calibration, the worst mistakes, origin."""
    title = f"{run.config.dataset}: test accuracy {evaluation.accuracy:.2%}"
    sections = [
        ("Learning curves", _curves(history)),
        ("Confusion matrix of the test set", _confusion(evaluation.confusion, run.labels)),
        ("Class by class", _classes(evaluation, run.labels)),
        ("Group by group", _groups(evaluation)),
        ("Are its probabilities to be believed?", _reliability(evaluation)),
        ("The mistakes it was surest of", _gallery(mistakes, run.labels, evaluation)),
        ("Where it came from", _facts(run, metrics)),
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
            f"<h1>{escape(run.config.dataset)}</h1>",
            f'<p class="soft">recipe {escape(run.config.recipe)}, seed {run.config.seed}, {escape(run.created_at)}</p>',
            _figures(evaluation, metrics),
            *(f"<h2>{heading}</h2>\n{section}" for heading, section in sections if section),
            "</body></html>\n",
        ]
    )


def _figures(evaluation: Evaluation, metrics: Mapping[str, float]) -> str:
    low, high = evaluation.interval
    figures = {
        "test accuracy": f"{evaluation.accuracy:.2%}",
        "95 % confidence": f"{100 * low:.2f} to {100 * high:.2f} %",
        "mistakes": f"{evaluation.images - evaluation.correct} of {evaluation.images:,}",
        "test loss": f"{evaluation.loss:.4f}",
        "validation accuracy": f"{metrics['validation_accuracy']:.2%}",
        "training time": format_seconds(metrics["train_wall_s"]),
    }
    page = '<div class="figures">' + "".join(f"<div><b>{v}</b>{escape(k)}</div>" for k, v in figures.items()) + "</div>"
    pipeline = metrics.get("training_pipeline_test_accuracy", evaluation.accuracy)
    if pipeline == evaluation.accuracy:
        return page
    gap = 100 * (pipeline - evaluation.accuracy)
    return page + (
        '<p class="soft">All figures are of pictures prepared as in production. Decoded and resized as in training, '
        f"the test accuracy is {pipeline:.2%}: {gap:+.2f} points.</p>"
    )


def _curves(history: Sequence[EpochRecord]) -> str:
    loss = {"training": [r.loss for r in history], "validation": [r.val_loss for r in history]}
    accuracy = {"training": [r.accuracy for r in history], "validation": [r.val_accuracy for r in history]}
    return f'<div class="charts">{line_chart("Loss", loss)}{line_chart("Accuracy", accuracy)}</div>'


def _confusion(confusion: Int64Array, labels: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in labels)
    rows = []
    for index, (label, counts) in enumerate(zip(labels, confusion.tolist(), strict=True)):
        cells = "".join(_cell(count, sum(counts), right=column == index) for column, count in enumerate(counts))
        rows.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
    return (
        '<p class="soft">A row is what an image shows, a column what the model said.</p>'
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


def _classes(evaluation: Evaluation, labels: Sequence[str]) -> str:
    rows = [
        (label, f"{one.images:,}", f"{one.images - one.correct}", f"{one.recall:.2%}", f"{one.precision:.2%}")
        for label, one in zip(labels, evaluation.classes, strict=True)
    ]
    return (
        '<p class="soft">Recognised: of the images that show it. To be trusted: of the images that were called so.</p>'
        + _table(("class", "images", "missed", "recognised", "to be trusted"), rows)
    )


def _groups(evaluation: Evaluation) -> str:
    rows = []
    for name, (images, correct) in evaluation.groups.items():
        if images:
            low, high = wilson_interval(correct, images)
            rows.append((name, f"{images:,}", f"{correct / images:.2%}", f"{100 * low:.2f} to {100 * high:.2f} %"))
    return _table(("group", "images", "accuracy", "95 % confidence"), rows) if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return (
        f'<div class="scroll"><table class="table"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _reliability(evaluation: Evaluation) -> str:
    if evaluation.reliability is None:
        return ""
    reliability = evaluation.reliability
    return (
        f'<p class="soft">Expected calibration error {100 * reliability.expected_error:.2f} points: so far apart are, '
        "on average, the probability stated and the share that came true. Bars on the dashed line would be perfect; "
        "the grey ones below count images, logarithmically, so short ones say little.</p>"
        f'<div class="charts">{reliability_diagram(reliability)}</div>'
    )


def _gallery(mistakes: Sequence[Mistake], labels: Sequence[str], evaluation: Evaluation) -> str:
    wrong = evaluation.images - evaluation.correct
    if not wrong:
        return '<p class="soft">There are none.</p>'
    figures = "".join(_mistake(mistake, labels) for mistake in mistakes)
    shown = "All of them" if len(mistakes) == wrong else f"{len(mistakes)} of {wrong:,}"
    return (
        f'<p class="soft">{shown}, surest first: what it shows, what the model said, and the image\'s position in the '
        f'test set.</p><div class="gallery">{figures}</div>'
    )


def _mistake(mistake: Mistake, labels: Sequence[str]) -> str:
    truth, answer = escape(labels[mistake.truth]), escape(labels[mistake.answer])
    return (
        f'<figure><img src="{data_address(mistake.image)}" alt="{truth}">'
        f"<figcaption>{truth}, said <b>{answer}</b> {mistake.probability:.1%}"
        f'<br><span class="soft">no. {mistake.position}</span></figcaption></figure>'
    )


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
