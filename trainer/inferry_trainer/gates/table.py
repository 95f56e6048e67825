"""The gates, in their order: `export` and `verify` go through this one table."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from inferry_proto.manifest import ManifestError, verify_files
from inferry_proto.preprocessing import channel_count
from inferry_trainer.blocks.reference import FLOAT32_TOLERANCE
from inferry_trainer.errors import GateError, name_some
from inferry_trainer.evaluation.evaluate import evaluate_probabilities
from inferry_trainer.gates.accuracy import check_above_chance, check_accuracy_drop, check_labels, check_recorded
from inferry_trainer.gates.batches import LIMITS, check_batches
from inferry_trainer.gates.golden import check_golden
from inferry_trainer.gates.graph import check_graph
from inferry_trainer.gates.outputs import check_varied
from inferry_trainer.gates.pixel_hint import better_pixels
from inferry_trainer.gates.result import GateResult
from inferry_trainer.gates.scaled_jpeg import check_scaled_jpeg
from inferry_trainer.gates.subject import Published, Subject
from inferry_trainer.gates.third_opinion import check_third_opinion

MODEL_FILE, LABELS_FILE = "model.onnx", "labels.txt"
PRECISIONS = ("float32", "float16", "int8")


@dataclass(frozen=True)
class Gate:
    """One question that is put to a graph.

    Attributes:
        name: the same in manifests, messages and errors.
        judge: measures, or raises `GateError`.
        of_versions: asks what only a published version has.
    """

    name: str
    judge: Callable[[Subject], GateResult]
    of_versions: bool = False


def judge(subject: Subject, *, leave_out: Collection[str] = ()) -> list[GateResult]:
    """Pass a graph through every gate, in the table's order.

    Args:
        subject: the graph.
        leave_out: names of gates whose figures nobody needs.

    Returns:
        What was measured, gate by gate; those that do not apply say why.

    Raises:
        GateError: the first gate that refuses it.
    """
    asked = [gate for gate in GATES if subject.published is not None or not gate.of_versions]
    return [gate.judge(subject) for gate in asked if gate.name not in leave_out]


def _manifest(subject: Subject) -> GateResult:
    manifest = _published(subject).manifest
    if manifest.precision not in PRECISIONS:
        raise GateError("manifest", f"the manifest's precision is {manifest.precision!r}; expected one of {PRECISIONS}")
    return GateResult("manifest", {"gates_recorded": len(manifest.gates)})


def _checksum(subject: Subject) -> GateResult:
    version = _published(subject)
    try:
        verify_files(version.folder, version.manifest)
    except (ManifestError, OSError) as error:
        raise GateError("checksum", str(error)) from error
    listed = {file.name for file in version.manifest.files}
    missing = {MODEL_FILE, version.manifest.golden_samples.file} - listed
    if missing:
        raise GateError("checksum", f"the manifest lists no checksum for {', '.join(sorted(missing)) or 'any file'}")
    return GateResult("checksum", {"files": len(listed)})


def _signature(subject: Subject) -> GateResult:
    model = subject.model
    if subject.published is not None:
        _check_recorded_signature(subject, subject.published)
    height, width, channels = model.image_shape
    return GateResult("signature", {"height": height, "width": width, "channels": channels, "K": model.classes})


def _check_recorded_signature(subject: Subject, version: Published) -> None:
    manifest, model = version.manifest, subject.model
    recorded = [[*spec.shape] for spec in (*manifest.signature.inputs, *manifest.signature.outputs)]
    found = [[-1, *model.image_shape], [-1, model.classes]]
    if recorded != found:
        raise GateError("signature", f"the manifest says {recorded}, the graph has {found}")
    made = manifest.preprocessing
    pictures = (made.height, made.width, channel_count(made))
    if pictures != model.image_shape:
        raise GateError(
            "signature",
            f"the manifest's preprocessing makes pictures of {pictures}, the graph takes {model.image_shape}",
        )


def _label_names(subject: Subject) -> GateResult:
    """The manifest itself has no checksum, but the file of labels beside it has one in it."""
    version = _published(subject)
    if LABELS_FILE in {file.name for file in version.manifest.files}:
        lines = tuple((version.folder / LABELS_FILE).read_text(encoding="utf-8").splitlines())
        _check_same_labels(subject.labels, lines, LABELS_FILE)
    if version.data_labels:
        _check_same_labels(subject.labels, version.data_labels, "the data")
    classes = subject.model.classes
    if len(subject.labels) != classes:
        raise GateError("label-names", f"there are {len(subject.labels)} labels for {classes} probabilities an image")
    return GateResult("label-names", {"classes": classes})


def _check_same_labels(labels: tuple[str, ...], others: tuple[str, ...], where: str) -> None:
    if labels == others:
        return
    if len(labels) != len(others):
        raise GateError("label-names", f"the manifest has {len(labels)} labels, {where} {len(others)}")
    different = [index for index, (one, other) in enumerate(zip(labels, others, strict=True)) if one != other]
    raise GateError(
        "label-names",
        f"{len(different)} of the manifest's {len(labels)} labels are others than in {where}: "
        f"{name_some([repr(labels[index]) for index in different])} where it has "
        f"{name_some([repr(others[index]) for index in different])}",
    )


def _varied_outputs(subject: Subject) -> GateResult:
    if subject.classifier is not None:
        check_varied(subject.keras_outputs, who="Keras")
    return check_varied(subject.outputs, who="ONNX Runtime", precision=subject.precision)


def _parity(subject: Subject) -> GateResult:
    if subject.classifier is None:
        return GateResult("parity", reason=subject.why_no_keras)
    return subject.parity.to_result(judged=subject.is_full_precision)


def _third_opinion(subject: Subject) -> GateResult:
    if subject.classifier is None:
        return GateResult("third-opinion", reason=subject.why_no_keras)
    full, rounding = subject.is_full_precision, subject.rounding
    return check_third_opinion(
        subject.classifier,
        subject.images,
        keras_outputs=subject.keras_outputs,
        onnx_outputs=subject.outputs,
        truth=subject.truth,
        keras_tolerance=max(FLOAT32_TOLERANCE, rounding.limit),
        onnx_tolerance=max(FLOAT32_TOLERANCE, rounding.limit) if full else np.inf,
    )


def _recorded_figures(subject: Subject) -> GateResult:
    evaluation = subject.evaluation if subject.published is not None else subject.keras_evaluation
    if evaluation is None:
        return GateResult("recorded-figures", reason=subject.why_no_test)
    recorded = subject.recorded
    if recorded.accuracy is None:
        now = f"; accuracy {evaluation.accuracy:.4f} over {evaluation.images} images" if subject.published else ""
        return GateResult("recorded-figures", reason=recorded.reason + now)
    return check_recorded(evaluation, accuracy=recorded.accuracy, loss=recorded.loss, where=recorded.where)


def _labels(subject: Subject) -> GateResult:
    if subject.evaluation is None:
        return GateResult("labels", reason=subject.why_no_test)
    return check_labels(subject.evaluation.confusion, subject.labels)


def _above_chance(subject: Subject) -> GateResult:
    if subject.evaluation is None:
        return GateResult("above-chance", reason=subject.why_no_test)
    return check_above_chance(subject.evaluation, hint=lambda: better_pixels(subject.classifier, subject.test))


def _accuracy_drop(subject: Subject) -> GateResult:
    if subject.is_full_precision:
        return GateResult("accuracy-drop", reason="float32 answers as Keras does, or parity refuses it")
    if subject.evaluation is None:
        return GateResult("accuracy-drop", reason=subject.why_no_test)
    keras = subject.keras_evaluation
    keras_accuracy = subject.recorded.keras_accuracy if keras is None else keras.accuracy
    if keras_accuracy is None:
        return GateResult(
            "accuracy-drop", reason=f"what Keras gets on these images is not known: {subject.why_no_keras}"
        )
    return check_accuracy_drop(
        subject.evaluation,
        keras_accuracy=keras_accuracy,
        precision=subject.precision,
        limit=subject.limits.accuracy_drop,
    )


def _scaled_jpeg(subject: Subject) -> GateResult:
    twice = subject.decoded_twice
    if twice is None:
        asked = subject.published is not None and subject.published.manifest.preprocessing.scaled_jpeg
        why = "no large pictures: name a folder of them with --scaled-jpeg" if asked else "JPEGs are decoded whole"
        return GateResult("scaled-jpeg", reason=why)
    whole, scaled = (
        evaluate_probabilities(subject.model.predict(part.images), part.labels) for part in (twice.whole, twice.scaled)
    )
    return check_scaled_jpeg(whole, scaled, different=twice.different, limit=subject.limits.accuracy_drop)


def _batch_consistency(subject: Subject) -> GateResult:
    rounding = max(LIMITS[subject.precision], subject.rounding.difference_limit)
    return check_batches(subject.model.run, subject.images, precision=subject.precision, rounding=rounding)


def _golden(subject: Subject) -> GateResult:
    return check_golden(subject.model, subject.golden, tolerance=subject.golden_tolerance)


def _latency(subject: Subject) -> GateResult:
    return subject.latency.to_result()


def _published(subject: Subject) -> Published:
    if subject.published is None:
        raise ValueError(f"{subject.graph} is no published version; `judge` asks this gate about versions only")
    return subject.published


GATES = (
    Gate("manifest", _manifest, of_versions=True),
    Gate("checksum", _checksum, of_versions=True),
    Gate("checker", lambda subject: check_graph(subject.graph)),
    Gate("signature", _signature),
    Gate("label-names", _label_names, of_versions=True),
    Gate("varied-outputs", _varied_outputs),
    Gate("parity", _parity),
    Gate("third-opinion", _third_opinion),
    Gate("recorded-figures", _recorded_figures),
    Gate("labels", _labels),
    Gate("above-chance", _above_chance),
    Gate("accuracy-drop", _accuracy_drop),
    Gate("scaled-jpeg", _scaled_jpeg),
    Gate("batch-consistency", _batch_consistency),
    Gate("golden", _golden),
    Gate("latency", _latency),
)
