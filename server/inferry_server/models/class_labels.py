"""Names of classes in text files, a label a line, as Triton has them."""

from collections.abc import Sequence
from pathlib import Path

from inferry_server.errors import ModelLoadError
from inferry_server.signature import Signature

LABELS_FILE = "labels.txt"


def read_labels(version_folder: Path, named: str | None) -> tuple[str, ...]:
    """Label i names class i; empty where there are none.

    Args:
        version_folder: a version's; the model's is above it.
        named: the file that the model's configuration names, in the model's folder; None: `labels.txt`
            beside the version's model or beside the versions.

    Raises:
        ModelLoadError: a file that cannot be read, or is named and not there.
    """
    model_folder = version_folder.parent
    if named is None:
        return _read_first((version_folder / LABELS_FILE, model_folder / LABELS_FILE))
    labels = _read_first((model_folder / named,))
    if not labels:
        raise ModelLoadError(f"{model_folder / named}, which config.pbtxt names for labels, is missing or empty")
    return labels


def check_labels(version_folder: Path, signature: Signature, labels: tuple[str, ...]) -> None:
    """Refuse labels that are not one for each class of the first output.

    Raises:
        ModelLoadError: says how many there are of each.
    """
    classes = signature.outputs[0].shape[-1:] if signature.outputs else ()
    if labels and classes and classes[0] not in (-1, len(labels)):
        raise ModelLoadError(f"{version_folder}: {len(labels)} labels for a model with {classes[0]} classes")


def _read_first(paths: Sequence[Path]) -> tuple[str, ...]:
    for path in paths:
        try:
            return tuple(path.read_text(encoding="utf-8").splitlines())
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise ModelLoadError(f"{path} cannot be read: {error}") from error
    return ()
