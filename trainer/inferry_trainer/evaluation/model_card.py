"""`MODEL_CARD.md`: what a model is for, what it is not for, and how well it does."""

from collections.abc import Mapping, Sequence

from inferry_trainer.evaluation.evaluate import Evaluation, wilson_interval
from inferry_trainer.training.description import RunDescription

_USES = {
    "digits": "Single handwritten digits, centred, light on dark, as in scikit-learn's and MNIST's pictures.",
    "mnist": "Single handwritten digits, centred in 28x28 pixels, light on dark, as MNIST prepared them.",
    "fashion-mnist": "Single pieces of clothing, centred in 28x28 grey pixels, light on dark.",
    "celeba": "Research and teaching on aligned portraits of the CelebA data set.",
    "folder": "Pictures like those it was trained on, taken in the same way of the same kinds of things.",
}
_GENERAL_LIMITS = (
    "It always answers with one of its labels, also for a picture that shows none of them: its probabilities are "
    "no measure of whether a picture is of the kind it was trained on.",
    "The figures hold for pictures like the test set's. Other cameras, other framing, other lighting: measure again.",
)
_LIMITS = {
    "digits": ("The test set is small (see the confidence interval), and its pictures were enlarged from 8x8 pixels.",),
    "mnist": (
        "Pictures must be prepared as MNIST's were: white strokes on black, size-normalised, centred by their mass. "
        "A photograph of a digit is none of that.",
    ),
    "fashion-mnist": ("Shirts, pullovers, coats and T-shirts are confused far more often than the rest.",),
}
_CELEBA_LIMITS = (
    "The label is not what a person is. It is one annotator's guess about a photograph of a celebrity, forced into "
    "yes or no; for `Male` it says nothing about anybody's gender.",
    "Do not use it to decide anything about people, to identify or sort them, or on pictures of anybody who has not "
    "agreed. The data set's licence allows research only.",
    "Celebrities are not people at large: age, skin colour, make-up, lighting and pose are those of press "
    "photographs. Accuracy differs between groups; where the data allows it, it is given below.",
)


def render_model_card(run: RunDescription, evaluation: Evaluation, metrics: Mapping[str, float]) -> str:
    """The card as Markdown."""
    dataset = run.config.dataset
    limits = [*_LIMITS.get(dataset, _CELEBA_LIMITS if dataset == "celeba" else ()), *_GENERAL_LIMITS]
    lines = [
        f"# Model card: {dataset}, {run.config.recipe}",
        "",
        f"An image classifier, {int(metrics['parameters']):,} parameters, trained {run.created_at[:10]} with Inferry. "
        f"Takes pictures of {_input(run)}; answers with a probability for each of {len(run.labels)} labels: "
        f"{', '.join(_escaped(label) for label in run.labels)}.",
        "",
        "## Intended use",
        "",
        _USES.get(dataset, _USES["folder"]),
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in limits),
        "",
        "## Data",
        "",
        f"{dataset}: {run.train_images:,} training, {run.validation_images:,} validation and {run.test_images:,} test "
        f"images (sha256 `{run.dataset_sha256}`). The model was never fitted to a test image.",
        "",
        "## Figures",
        "",
        *_figures(evaluation, metrics),
        "",
        "Class by class:",
        "",
        *_table(
            ("class", "images", "recognised", "to be trusted"),
            [
                (_escaped(label), f"{one.images:,}", f"{one.recall:.2%}", f"{one.precision:.2%}")
                for label, one in zip(run.labels, evaluation.classes, strict=True)
            ],
        ),
        "",
        *_groups(evaluation),
        "Recognised: of the images that show the class. To be trusted: of the images that were called so. "
        "`report.html` beside this file shows curves, confusions and the worst mistakes.",
    ]
    return "\n".join(lines) + "\n"


def _input(run: RunDescription) -> str:
    spec = run.preprocessing
    color = "grey" if spec.color_mode == spec.GRAYSCALE else "colour"
    crop = spec.crop
    taken = f"{crop.picture_width}x{crop.picture_height} or the same proportions" if crop.picture_width else "any size"
    return f"{taken}, seen as {spec.width}x{spec.height} {color} pixels"


def _figures(evaluation: Evaluation, metrics: Mapping[str, float]) -> list[str]:
    low, high = evaluation.interval
    lines = [
        f"- Test accuracy {evaluation.accuracy:.2%} ({evaluation.correct:,} of {evaluation.images:,}); "
        f"95 % confidence {100 * low:.2f} to {100 * high:.2f} %.",
        f"- Test loss (cross-entropy) {evaluation.loss:.4f}.",
    ]
    if evaluation.reliability is not None:
        lines.append(
            f"- Expected calibration error {100 * evaluation.reliability.expected_error:.2f} points: so far, on "
            "average, a stated probability lies from the share that comes true."
        )
    if "training_pipeline_test_accuracy" in metrics:
        gap = 100 * (metrics["training_pipeline_test_accuracy"] - evaluation.accuracy)
        lines.append(f"- Decoded and resized as in training instead of as in production: {gap:+.2f} points.")
    return lines


def _groups(evaluation: Evaluation) -> list[str]:
    rows = []
    for name, (images, correct) in evaluation.groups.items():
        if images:
            low, high = wilson_interval(correct, images)
            interval = f"{100 * low:.2f} to {100 * high:.2f} %"
            rows.append((_escaped(name), f"{images:,}", f"{correct / images:.2%}", interval))
    if not rows:
        return []
    return ["Group by group:", "", *_table(("group", "images", "accuracy", "95 % confidence"), rows), ""]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]


def _escaped(text: str) -> str:
    """A label as Markdown shows it, also within a table."""
    return "".join(f"\\{character}" if character in "\\`*_{}[]<>#|" else character for character in text)
