"""Files that reports go to."""

from pathlib import Path

from inferry_client.load.errors import LoadError


def check_target(name: str | None) -> Path | None:
    """The file that a report shall be written to, tried before the test and not after it.

    Raises:
        LoadError: it cannot be written.
    """
    if name is None:
        return None
    path = Path(name).absolute()
    if not path.parent.is_dir():
        raise LoadError(f"{path.parent} is no folder, so {path.name} cannot be written there; create it first")
    if path.is_dir():
        raise LoadError(f"{path} is a folder; expected a file to write")
    existed = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise LoadError(f"{path} cannot be written: {error.strerror}") from error
    if not existed:
        path.unlink()  # nothing is left behind if the test fails
    return path


def write_target(path: Path, text: str) -> None:
    """Write a report.

    Raises:
        LoadError: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LoadError(f"{path} cannot be written: {error.strerror}") from error
