"""Names of classes in text files, a label a line, as Triton has them: read alike by servers and by jobs without one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from inferry_proto.files import read_text

LABELS_FILE = "labels.txt"


class LabelFileError(ValueError):
    """A file of labels that is there and cannot be read."""


def read_first_labels(paths: Sequence[Path]) -> tuple[str, ...] | None:
    """The labels of the first file that is there, without blank lines at its end; None where none is there.

    Raises:
        LabelFileError: a file that is there cannot be read.
    """
    for path in paths:
        try:
            text = read_text(path)
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise LabelFileError(f"{path} cannot be read: {error}") from error
        last = len(text.rstrip())  # character; the blank lines behind it may be millions
        end = text.find("\n", last)
        return tuple(text[: end if end >= 0 else len(text)].split("\n")) if last else ()
    return None


def label_files(version_folder: Path) -> tuple[Path, Path]:
    """Where labels are looked for that nothing names: beside the version's model, then beside the versions."""
    return version_folder / LABELS_FILE, version_folder.parent / LABELS_FILE


def labelled_output(counts: Mapping[str, int | None], labels: Sequence[str]) -> str | None:
    """The output whose classes a file names that says nothing of outputs.

    Args:
        counts: of the classes of each output; None where that is free.
        labels: in the file.

    Returns:
        The first that has as many classes, or may have, or the only one; None where several outputs have other
        numbers: labels that may be another's help nobody.
    """
    for fitting in (len(labels), None):
        for name, classes in counts.items():
            if classes == fitting:  # guard: labels-as-many-classes
                return name
    return next(iter(counts)) if len(counts) == 1 else None
