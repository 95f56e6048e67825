"""Names of classes in text files, a label a line, as Triton has them. Labels belong to an output, not to a model."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from inferry_proto.label_files import LABELS_FILE, LabelFileError, label_files, labelled_output, read_first_labels
from inferry_server.errors import ModelLoadError
from inferry_server.signature import Signature, TensorSpec

logger = logging.getLogger(__name__)

Labels = Mapping[str, tuple[str, ...]]
"""By output: label i names class i. Outputs without labels are not in it."""


def read_labels(
    version_folder: Path,
    signature: Signature,
    *,
    batched: bool,
    recorded: Sequence[str] = (),
    named: Mapping[str, str] | None = None,
) -> Labels:
    """The labels of each output that has some.

    Args:
        version_folder: a version's; the model's is above it.
        signature: the model's.
        batched: whether the first axis of an output counts rows, and no classes.
        recorded: in the manifest; they name the classes of the first output.
        named: by output, the files in the model's folder that the model's configuration names. Where
            neither says anything: `labels.txt` beside the version's model or beside the versions, for
            the first output that has as many classes, or the only one.

    Files with more or fewer labels than there are classes are taken with a warning; classes without a label
    are answered by index.

    Raises:
        ModelLoadError: a file that cannot be read, or is named and not there, or a manifest that has not a
            label for each class.
    """
    model_folder = version_folder.parent
    labels = {output: _read_named(model_folder / file) for output, file in (named or {}).items()}
    if not labels and not recorded:
        found = _read_first(label_files(version_folder))
        owner = _owner(version_folder, signature, found, batched=batched) if found else None
        labels = {owner: found} if owner is not None and found else {}
    fitting = {
        spec.name: _fit(version_folder, spec, labels[spec.name], batched=batched)
        for spec in signature.outputs
        if spec.name in labels
    }
    if recorded and signature.outputs:
        first = signature.outputs[0]
        if class_count(first, batched=batched) not in (None, len(recorded)):  # guard: labels-manifest
            classes = class_count(first, batched=batched)
            raise ModelLoadError(
                f"{version_folder}: {len(recorded)} labels for output {first.name!r} with {classes} classes"
            )
        fitting[first.name] = tuple(recorded)
    return fitting


def class_count(spec: TensorSpec, *, batched: bool) -> int | None:
    """How many classes an output scores, of each row where the model is batched; None where a length is free."""
    axes = spec.shape[1:] if batched else spec.shape
    return None if spec.any_rank or -1 in axes else math.prod(axes)


def _fit(folder: Path, spec: TensorSpec, labels: tuple[str, ...], *, batched: bool) -> tuple[str, ...]:
    """The labels of classes that there are; says so where there are others, or classes without one."""
    classes = class_count(spec, batched=batched)
    if classes in (None, len(labels)):
        return labels
    left = "the last ones are nobody's" if len(labels) > classes else "classes without one are answered by index"
    logger.warning(
        "%d labels for output %r with %d classes: %s",
        len(labels),
        spec.name,
        classes,
        left,
        extra={"model": str(folder)},
    )
    return labels[:classes]


def _owner(folder: Path, signature: Signature, labels: Sequence[str], *, batched: bool) -> str | None:
    """The output whose classes a file names that says nothing of outputs; none of several is said in the log."""
    counts = {spec.name: class_count(spec, batched=batched) for spec in signature.outputs}
    owner = labelled_output(counts, labels)
    if owner is None:
        has = ", ".join(f"output {name!r} has {classes} classes" for name, classes in counts.items())
        logger.warning(
            "%s has %d labels and names no classes: %s; label_filename in config.pbtxt says whose it is",
            LABELS_FILE, len(labels), has or "the model has no output", extra={"model": str(folder)},
        )  # fmt: skip
    return owner


def _read_named(path: Path) -> tuple[str, ...]:
    labels = _read_first((path,))
    if labels is None:
        raise ModelLoadError(f"{path}, which config.pbtxt names for labels, is missing")
    return labels


def _read_first(paths: Sequence[Path]) -> tuple[str, ...] | None:
    try:
        return read_first_labels(paths)
    except LabelFileError as error:
        raise ModelLoadError(str(error)) from error
