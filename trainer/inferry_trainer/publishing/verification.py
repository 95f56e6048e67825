"""Repeating on a published version what it had to pass: all of it, as far as evidence is there."""

from dataclasses import dataclass
from pathlib import Path

from inferry_proto.manifest_pb2 import ModelManifest
from inferry_trainer.datasets import Part
from inferry_trainer.evaluation.classifier import Classifier
from inferry_trainer.gates.accuracy import MAX_ACCURACY_DROP
from inferry_trainer.gates.result import GateResult
from inferry_trainer.gates.rounding import CEILING, FACTOR, MAX_DIFFERENCE
from inferry_trainer.gates.scaled_jpeg import DecodedTwice
from inferry_trainer.gates.subject import Limits, Published, Recorded, Subject, digest_of
from inferry_trainer.gates.table import MODEL_FILE, judge
from inferry_trainer.publishing.catalog import manifest_of


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a version can be held against.

    Attributes:
        classifier: the Keras model it was exported from; None where it is not at hand.
        test: labelled images; None where they are not at hand.
        labels: their classes' names, in order; empty without images.
        why_not: why there are no images.
        decoded_twice: labelled pictures, whole and decoded smaller; None where the version decodes JPEGs whole, or
            none were named.
    """

    classifier: Classifier | None = None
    test: Part | None = None
    labels: tuple[str, ...] = ()
    why_not: str = "no test images: name them with --run, --data or --data-dir"
    decoded_twice: DecodedTwice | None = None


def verify_version(version: Path, evidence: Evidence) -> list[GateResult]:
    """Repeat a version's gates.

    Args:
        version: a published version's folder.
        evidence: what it is held against.

    Returns:
        What was measured, gate by gate; those that could not be repeated say why.

    Raises:
        GateError: the first gate that it fails.
    """
    manifest = manifest_of(version)
    return judge(
        Subject(
            graph=version / MODEL_FILE,
            precision=manifest.precision,
            labels=tuple(manifest.labels),
            limits=_limits(manifest),
            classifier=evidence.classifier,
            test=evidence.test,
            why_no_test=evidence.why_not,
            recorded=_recorded(manifest, evidence.test),
            published=Published(version, manifest, evidence.labels),
            decoded_twice=evidence.decoded_twice,
        )
    )


def _limits(manifest: ModelManifest) -> Limits:
    """Those it was published with, as far as they are limits that an export takes."""
    scaled = _figure(manifest, "scaled-jpeg", "points_limit", MAX_ACCURACY_DROP)  # float32 has no other record of it
    points = _figure(manifest, "accuracy-drop", "points_limit", scaled)
    floor = _figure(manifest, "parity", "floor", manifest.parity.max_abs_difference_limit)
    return Limits(accuracy_drop=points, difference=min(max(MAX_DIFFERENCE, floor), CEILING))


def _recorded(manifest: ModelManifest, test: Part | None) -> Recorded:
    evaluation, metrics = manifest.evaluation, manifest.evaluation.metrics
    rounding = min(_figure(manifest, "parity", "rounding", 0.0), (1 + FACTOR) * CEILING)
    if "test_accuracy" not in metrics:
        return Recorded(rounding=rounding, reason="it was published unverified")
    if test is None or (evaluation.test_sha256 and evaluation.test_sha256 != digest_of(test)):
        return Recorded(rounding=rounding, reason="these are not the images it was published with")
    return Recorded(
        where="the manifest",
        accuracy=metrics["test_accuracy"],
        loss=metrics.get("test_loss") if manifest.precision == "float32" else None,
        keras_accuracy=metrics.get("keras_test_accuracy"),
        rounding=rounding,
    )


def _figure(manifest: ModelManifest, gate: str, name: str, otherwise: float) -> float:
    """What a gate recorded, or something else where it did not."""
    recorded = next((each.figures for each in manifest.gates if each.name == gate), None)
    return otherwise if recorded is None or name not in recorded else recorded[name]
