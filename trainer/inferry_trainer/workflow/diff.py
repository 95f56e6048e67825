"""Two published versions side by side: accuracy, agreement, size, speed, and where they disagree."""

from pathlib import Path

from inferry_proto.cores import available_cores
from inferry_proto.manifest_pb2 import ModelManifest
from inferry_trainer.datasets import Part
from inferry_trainer.errors import ConfigError, PublishError
from inferry_trainer.evaluation.comparison import Comparison, compare_answers
from inferry_trainer.evaluation.evaluate import Evaluation
from inferry_trainer.evaluation.pictures import encode_png
from inferry_trainer.export.onnx_model import OnnxModel, load_onnx_model
from inferry_trainer.gates.latency import LatencyCurve, measure_latency
from inferry_trainer.publishing.catalog import MODEL_FILE, manifest_of
from inferry_trainer.publishing.evidence import EvidenceOptions, find_evidence
from inferry_trainer.workflow import Say

_LISTED = 20


def diff_versions(
    first: Path, second: Path, options: EvidenceOptions, *, pictures: Path | None, say: Say
) -> Comparison:
    """Compare two versions on the same images.

    Args:
        first: a published version's folder.
        second: likewise; of the same labels and image size.
        options: where the images are; without, those of a data set that needs no files.
        pictures: a folder for the images on which they disagree; None writes none.
        say: told what was measured, a line at a time.

    Raises:
        TrainerError: no images, or two versions that cannot be compared.
    """
    manifests = manifest_of(first), manifest_of(second)
    models = load_onnx_model(first / MODEL_FILE), load_onnx_model(second / MODEL_FILE)
    _check_comparable(manifests, models)
    evidence = find_evidence(manifests[0], options)
    if evidence.test is None:
        raise ConfigError(f"there is nothing to compare them on: {evidence.why_not}")
    test = evidence.test
    models[0].check_images(test.images)
    outputs = models[0].predict(test.images), models[1].predict(test.images)
    comparison = compare_answers(*outputs, test.labels)
    curves = [measure_latency(model.run, test.images[:32], threads=available_cores()) for model in models]
    for line in _table((first, second), manifests, comparison, curves):
        say(line)
    say(
        f"agreement   {comparison.agreement:.2%} of {len(test):,} images; probabilities differ by "
        f"{comparison.max_abs_difference:.2g} at most"
    )
    say(
        f"only A right {comparison.only_first_right}, only B right {comparison.only_second_right}; so uneven a split "
        f"comes by chance with probability {comparison.chance:.2g}"
    )
    answers = [output.argmax(axis=1) for output in outputs]
    labels = [*manifests[0].labels]
    for count, position in enumerate(comparison.disagreements.tolist()):
        if count == _LISTED:
            say(
                f"  and {len(comparison.disagreements) - _LISTED} more"
                + ("" if pictures else " (--out keeps them all)")
            )
            break
        truth, (a, b) = labels[test.labels[position]], (labels[answer[position]] for answer in answers)
        sure = [float(output[position].max()) for output in outputs]
        say(f"  no. {position}: shows {truth}; A says {a} ({sure[0]:.1%}), B says {b} ({sure[1]:.1%})")
    if pictures is not None:
        _write_pictures(pictures, test, comparison, [[labels[answer] for answer in each] for each in answers], labels)
        say(f"pictures: {pictures}")
    return comparison


def _check_comparable(manifests: tuple[ModelManifest, ModelManifest], models: tuple[OnnxModel, OnnxModel]) -> None:
    first, second = manifests
    if [*first.labels] != [*second.labels]:
        raise ConfigError(f"they have different labels: {', '.join(first.labels)} and {', '.join(second.labels)}")
    if models[0].image_shape != models[1].image_shape:
        raise ConfigError(f"they take images of {models[0].image_shape} and {models[1].image_shape}; expected the same")


def _table(
    paths: tuple[Path, Path],
    manifests: tuple[ModelManifest, ModelManifest],
    comparison: Comparison,
    curves: list[LatencyCurve],
) -> list[str]:
    def interval(evaluation: Evaluation) -> str:
        low, high = evaluation.interval
        return f"{evaluation.accuracy:.2%} ({100 * low:.2f} to {100 * high:.2f})"

    evaluations = comparison.first, comparison.second
    rows = [
        ("", "A", "B"),
        ("version", *(f"{path.parent.name}/{path.name}" for path in paths)),
        ("precision", *(manifest.precision for manifest in manifests)),
        ("accuracy", *map(interval, evaluations)),
        ("loss", *(f"{evaluation.loss:.4f}" for evaluation in evaluations)),
        ("size", *(f"{(path / MODEL_FILE).stat().st_size / 1e6:.1f} MB" for path in paths)),
        ("1 image", *(f"{dict(curve.points)[1]:.2f} ms" for curve in curves)),
        ("32 images", *(f"{dict(curve.points)[32]:.2f} ms" for curve in curves)),
        ("created", *(manifest.provenance.created_at for manifest in manifests)),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _write_pictures(
    folder: Path, test: Part, comparison: Comparison, answers: list[list[str]], labels: list[str]
) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for position in comparison.disagreements.tolist():
            names = labels[test.labels[position]], answers[0][position], answers[1][position]
            truth, a, b = ("".join(c if c.isalnum() else "-" for c in name) for name in names)
            (folder / f"{position}_{truth}_A-{a}_B-{b}.png").write_bytes(encode_png(test.images[position]))
    except OSError as error:
        raise PublishError(f"{folder} cannot be written to: {error.strerror or error}") from error
