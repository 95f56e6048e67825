"""An export: from a run folder, or any Keras model, to proven, published versions."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inferry_trainer.errors import ConfigError, ExportError, GateError, TrainerError
from inferry_trainer.export.candidate import Candidate, candidate_from_run
from inferry_trainer.export.convert import export_classifier
from inferry_trainer.export.keras_source import KerasSource, candidate_from_keras
from inferry_trainer.gates.accuracy import MAX_ACCURACY_DROP
from inferry_trainer.gates.result import GateResult
from inferry_trainer.gates.rounding import CEILING, MAX_DIFFERENCE
from inferry_trainer.gates.scaled_jpeg import DecodedTwice, decode_twice, with_scaling
from inferry_trainer.gates.subject import Limits, Recorded, Subject
from inferry_trainer.gates.table import PRECISIONS, judge
from inferry_trainer.publishing.bill_of_materials import canonical_license, write_bill_of_materials
from inferry_trainer.publishing.publish import check_model_name, publish_version
from inferry_trainer.publishing.release import Release, variant_name, write_release
from inferry_trainer.publishing.signatures import check_private_key, seal_settings, seal_version
from inferry_trainer.publishing.version_labels import (
    STABLE,
    check_new_label,
    keep_traffic,
    point_label_at,
    version_to_keep,
)
from inferry_trainer.training.run_folder import read_run_folder
from inferry_trainer.workflow import Say


@dataclass(frozen=True)
class ExportOptions:
    """What is published, where, and what is accepted.

    Attributes:
        repository: of models; made where it does not exist.
        model_name: the data set's name where None; variants add their precision: `mnist-int8`.
        precisions: what to publish, each as a model of its own.
        max_accuracy_drop: percentage points of test accuracy that reduced precision may cost.
        max_difference: between a probability of Keras' and one of the float32 graph's, accepted whatever the
            model's own rounding is; what was accepted is recorded.
        label: to point at what is published; None for none.
        keep_traffic: whether requests that name no version stay with the versions that they go to now, but for the
            label's own share. Where a model has no traffic, its newest version becomes `stable` and gets all of it.
        scaled_jpeg: labelled pictures with which it is measured what decoding large JPEGs smaller costs; servers and
            batch jobs then decode them so. None: they decode every picture whole.
        sign: private key to sign what is published with; None: unsigned.
        license_expression: of SPDX, for the bill of materials; None: it names no license.

    Raises:
        ConfigError: a precision or a license that does not exist, a limit outside its range, or traffic that is to
            be kept from a version without a label, or from `stable`.
    """

    repository: Path
    model_name: str | None = None
    precisions: Sequence[str] = ("float32",)
    max_accuracy_drop: float = MAX_ACCURACY_DROP
    max_difference: float = MAX_DIFFERENCE
    label: str | None = None
    keep_traffic: bool = False
    scaled_jpeg: Path | None = None
    sign: Path | None = None
    license_expression: str | None = None

    def __post_init__(self) -> None:
        unknown = [precision for precision in self.precisions if precision not in PRECISIONS]
        if unknown or not self.precisions:
            raise ConfigError(f"precision is {', '.join(unknown) or 'empty'}; expected some of {', '.join(PRECISIONS)}")
        if not 0 <= self.max_accuracy_drop <= 100:
            raise ConfigError(f"max_accuracy_drop is {self.max_accuracy_drop}; expected 0 to 100 percentage points")
        if not 0 < self.max_difference <= CEILING:
            raise ConfigError(f"max_difference is {self.max_difference:g}; expected more than 0, {CEILING:g} at most")
        if self.model_name is not None:
            check_model_name(self.model_name)
        if self.label is not None:
            check_new_label(self.label)
        if self.keep_traffic and self.label in (None, STABLE):
            raise ConfigError(
                f"keep_traffic is set and label is {self.label}; expected another label than {STABLE}, as canary: its "
                "version would get no request that names none"
            )
        if self.sign is not None:
            check_private_key(self.sign)
        if self.license_expression is not None:
            canonical_license(self.license_expression)


def export_run(run_folder: Path, options: ExportOptions, *, say: Say) -> list[Path]:
    """Export a run's model to ONNX, prove it, and publish it as the model's next version.

    Args:
        run_folder: what `train_run` left.
        options: what to publish, and where.
        say: told what happens, a line at a time.

    Returns:
        The folders of the published versions, in the order of the precisions.

    Raises:
        TrainerError: what was refused; nothing is published then.
    """
    return publish_candidate(candidate_from_run(read_run_folder(run_folder)), options, say=say)


def export_keras(source: KerasSource, options: ExportOptions, *, say: Say) -> list[Path]:
    """Export anybody's Keras model, prove it, and publish it.

    Args:
        source: the model's file and what is said about it.
        options: what to publish, and where.
        say: told what happens, a line at a time.

    Returns:
        The folders of the published versions, in the order of the precisions.

    Raises:
        TrainerError: what was refused; nothing is published then.
    """
    if source.data is None:
        _check_unverified(options)
    if "int8" in options.precisions and source.calibration is None:
        raise ConfigError("int8 needs training pictures to calibrate with: name a folder of them with --calibration")
    candidate = candidate_from_keras(source)
    say(f"pixels: {candidate.classifier.pixels.value}: {candidate.provenance.config['pixels_why']}")
    return publish_candidate(candidate, options, say=say)


def publish_candidate(candidate: Candidate, options: ExportOptions, *, say: Say) -> list[Path]:
    """Publish every variant of a candidate that passes its gates.

    Raises:
        TrainerError: what was refused. A variant that is refused keeps no other from being published.
    """
    name = options.model_name or candidate.name
    check_model_name(name)
    if candidate.test is None:
        _check_unverified(options)
    if options.keep_traffic and options.label is not None:
        for precision in options.precisions:  # what is refused is refused before the work
            version_to_keep(options.repository / variant_name(name, precision), options.label)
    twice = None
    if options.scaled_jpeg is not None:
        twice = decode_twice(options.scaled_jpeg, candidate.labels, candidate.preprocessing)
        candidate = replace(candidate, preprocessing=with_scaling(candidate.preprocessing))
    published, refused = [], []
    with tempfile.TemporaryDirectory(prefix="inferry-export-") as folder:
        try:
            float32, gates = _prove_float32(candidate, options, Path(folder) / "float32.onnx", twice)
        except (GateError, ExportError) as error:
            raise _nothing_published(error) from error
        for precision in options.precisions:
            try:
                published.append(_publish(candidate, options, float32, gates, name, precision, say))
            except (GateError, ExportError) as error:
                if len(options.precisions) == 1:
                    raise _nothing_published(error) from error
                refused.append(TrainerError(f"{variant_name(name, precision)} was not published: {error}"))
    if refused:
        raise TrainerError("; ".join(map(str, refused))) from refused[0]
    return published


def _prove_float32(
    candidate: Candidate, options: ExportOptions, path: Path, twice: DecodedTwice | None
) -> tuple[Subject, list[GateResult]]:
    """The float32 graph passes its gates once, whatever is published: variants are made of it."""
    export_classifier(candidate.classifier, path)
    subject = Subject(
        graph=path,
        precision="float32",
        labels=candidate.labels,
        limits=Limits(options.max_accuracy_drop, options.max_difference),
        classifier=candidate.classifier,
        test=candidate.test,
        recorded=Recorded(accuracy=candidate.recorded_accuracy, loss=candidate.recorded_loss),
        decoded_twice=twice,
    )
    only_variants = "float32" not in options.precisions
    leave_out = ("golden", "latency") if only_variants else ()
    return subject, judge(subject, leave_out=leave_out)  # guard: gates-float32-first


def _publish(
    candidate: Candidate,
    options: ExportOptions,
    float32: Subject,
    gates: list[GateResult],
    base: str,
    precision: str,
    say: Say,
) -> Path:
    def write(folder: Path) -> None:
        release = write_release(folder, candidate, base=base, precision=precision, float32=float32, gates=gates)
        _say_what_was_measured(release, say)
        for gate in release.manifest.gates:
            if gate.outcome == gate.PASSED and gate.reason:
                say(f"warning: {gate.name}: {gate.reason}")

    def seal(folder: Path) -> None:
        write_bill_of_materials(folder, license_expression=options.license_expression)
        if key is not None:
            seal_version(folder, key)
        if options.keep_traffic and options.label is not None:
            _keep_traffic(model, options.label, key, say)  # before servers can see the version

    key = options.sign
    model = options.repository / variant_name(base, precision)
    version = publish_version(options.repository, variant_name(base, precision), write, seal=seal)
    if options.label is not None:
        point_label_at(version, options.label)
    if key is not None:
        seal_settings(version.parent, key)
    say(f"published: {version}" + (f", labelled {options.label}" if options.label else "") + ", signed" * bool(key))
    return version


def _keep_traffic(model: Path, label: str, key: Path | None, say: Say) -> None:
    kept = keep_traffic(model, label)
    if kept is None:
        return
    if key is not None:
        seal_settings(model, key)
    say(f"traffic: requests that name no version stay with version {kept} of {model.name}, which is now {STABLE}")


def _nothing_published(error: GateError | ExportError) -> TrainerError:
    if isinstance(error, GateError):
        return GateError(error.gate, f"{error.message}; nothing was published")
    return ExportError(f"{error}; nothing was published")


def _check_unverified(options: ExportOptions) -> None:
    if options.label == "stable":
        raise ConfigError("an unverified model is never published as stable; give it data, or another label")
    if set(options.precisions) != {"float32"}:
        raise ConfigError("reduced precision is published only with its accuracy measured; give it data, or float32")


def _say_what_was_measured(release: Release, say: Say) -> None:
    subject, manifest = release.subject, release.manifest
    parity, keras = subject.parity, subject.keras_evaluation
    size = f"{release.model_bytes / 1e6:.1f} MB of ONNX"
    say(f"exported: {size}, {manifest.precision}, uint8 pixels to probabilities, any batch size")
    limit = f" (limit {parity.rounding.difference_limit:.2g})" if subject.is_full_precision else ""
    what = "test images" if subject.evaluation else "made-up images"
    say(
        f"verified: over {parity.images} {what} Keras and ONNX Runtime differ by {parity.max_abs_difference:.2g} "
        f"at most{limit}; labels differ on {parity.label_mismatches} ({parity.label_ties} ties); "
        f"{len(manifest.gates)} gates"
    )
    if subject.evaluation and keras:
        say(f"test accuracy: Keras {keras.accuracy:.4f}, ONNX Runtime {subject.evaluation.accuracy:.4f}")
    else:
        say("test accuracy: not measured: unverified")
    latency = subject.latency
    say(
        f"latency: a batch of n takes about {latency.fixed_ms:.2f} + {latency.per_image_ms:.3f} n ms on "
        f"{latency.threads} CPU threads"
    )
