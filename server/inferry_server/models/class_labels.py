"""Names of classes in text files, a label a line, as Triton has them. Labels belong to an output, not to a model."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from inferry_server.errors import ModelLoadError
from inferry_server.signature import Signature, TensorSpec

LABELS_FILE = "labels.txt"

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
            the first output that has as many classes.

    Raises:
        ModelLoadError: a file that cannot be read, or is named and not there, or not a label for each class.
    """
    model_folder = version_folder.parent
    labels = {output: _read_named(model_folder / file) for output, file in (named or {}).items()}
    if recorded and signature.outputs:
        labels[signature.outputs[0].name] = tuple(recorded)
    if not labels:
        found = _read_first((version_folder / LABELS_FILE, model_folder / LABELS_FILE))
        return {_owner(version_folder, signature, found, batched=batched): found} if found else {}
    for spec in signature.outputs:
        count, classes = len(labels.get(spec.name, ())), class_count(spec, batched=batched)
        if count and classes not in (None, count):
            raise ModelLoadError(f"{version_folder}: {count} labels for output {spec.name!r} with {classes} classes")
    return labels


def class_count(spec: TensorSpec, *, batched: bool) -> int | None:
    """How many classes an output scores, of each row where the model is batched; None where a length is free."""
    axes = spec.shape[1:] if batched else spec.shape
    return None if -1 in axes else math.prod(axes)


def _owner(folder: Path, signature: Signature, labels: Sequence[str], *, batched: bool) -> str:
    """The output whose classes a file names that says nothing of outputs: the first that has as many, or may have."""
    counts = {spec.name: class_count(spec, batched=batched) for spec in signature.outputs}
    for fitting in (len(labels), None):
        for name, classes in counts.items():
            if classes == fitting:  # guard: labels-as-many-classes
                return name
    has = ", ".join(f"output {name!r} has {classes} classes" for name, classes in counts.items())
    raise ModelLoadError(f"{folder}: {LABELS_FILE} has {len(labels)} labels; {has or 'the model has no output'}")


def _read_named(path: Path) -> tuple[str, ...]:
    labels = _read_first((path,))
    if not labels:
        raise ModelLoadError(f"{path}, which config.pbtxt names for labels, is missing or empty")
    return labels


def _read_first(paths: Sequence[Path]) -> tuple[str, ...]:
    for path in paths:
        try:
            return tuple(path.read_text(encoding="utf-8").splitlines())
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise ModelLoadError(f"{path} cannot be read: {error}") from error
    return ()
