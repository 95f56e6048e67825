"""The names of a model's classes, as the user gives them."""

import os
from pathlib import Path

from inferry_trainer.errors import ConfigError, name_some


def read_labels(text: str) -> tuple[str, ...]:
    """Labels with commas between, or, where a file has this name, one a line.

    Raises:
        ConfigError: the file is not there or cannot be read.
    """
    if not os.path.isfile(text):  # noqa: PTH113 - no error for a line of labels that is too long for a path
        if "," in text:
            return tuple(label.strip() for label in text.split(","))
        raise ConfigError(
            f"--labels {text}: there is no such file; expected a file with a label a line, or at least two labels "
            "with commas between"
        )
    try:
        lines = Path(text).read_text(encoding="utf-8-sig").splitlines()  # editors put a byte order mark before it
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{text} cannot be read as labels, one a line: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())


def check_label_count(labels: tuple[str, ...], classes: int, *, of: Path) -> None:
    """Refuse labels that are not as many as classes.

    Raises:
        ConfigError: names both counts, and the first of the labels.
    """
    if len(labels) == classes:  # guard: labels-count
        return
    hint = "; a label with a comma in it needs a file, one a line" if len(labels) > classes else ""
    raise ConfigError(
        f"{of} tells {classes} classes apart; {len(labels)} labels came ({name_some(labels)}): give --labels one for "
        f"each output, in order{hint}"
    )
