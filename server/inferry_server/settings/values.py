"""Values of settings: from the text of a flag or variable, from TOML, and back to TOML."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inferry_server.addresses import Address, AnyAddress, parse_address, parse_any_address

UNSET = "none"
"""How a setting that may be unset is spelled, to undo what a file or the environment says."""


def to_toml(value: Any) -> str:
    """A value as it stands behind the equals sign."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case _:
            text = UNSET if value is None else str(value)
            return '"' + "".join(_ESCAPES.get(c, c) if c >= " " else f"\\u{ord(c):04x}" for c in text) + '"'


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\x7f": "\\u007f"}


def _parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"expected a whole number, not {text!r}") from None


def _parse_float(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if number - number != 0:  # NaN or infinite
        raise ValueError(f"expected a number, not {text!r}")
    return number


def _parse_optional_float(text: str) -> float | None:
    return None if text == UNSET else _parse_float(text)


def _parse_optional_text(text: str) -> str | None:
    return None if text == UNSET else text


def _parse_folder(text: str) -> Path:
    """The path of a folder; a URL would become a path that is not there."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise ValueError(
            f"expected a folder of this machine, not the URL {text!r}; mount the bucket as a folder (a CSI driver, "
            "rclone mount), or copy it before the server starts (in Kubernetes an init container: aws s3 sync, "
            "gsutil rsync, azcopy)"
        )
    return Path(text)


def _parse_optional_path(text: str) -> Path | None:
    return None if text == UNSET else Path(text)


def _parse_bool(text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in known:
        raise ValueError(f"expected true or false, not {text!r}")
    return known[text.lower()]


def _read_int(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"expected a whole number, not {value!r}")


def _read_float(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _parse_float(str(value))
    raise ValueError(f"expected a number, not {value!r}")


def _read_optional_float(value: Any) -> float | None:
    return None if value == UNSET else _read_float(value)


def _read_optional_path(value: Any) -> Path | None:
    return None if value == UNSET else Path(_read_text(value))


def _read_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"expected true or false, not {value!r}")


def _read_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"expected a text, not {value!r}")


def _read_optional_text(value: Any) -> str | None:
    return _parse_optional_text(_read_text(value))


PARSERS: dict[Any, Callable[[str], Any]] = {
    Path: _parse_folder,
    Path | None: _parse_optional_path,
    Address: parse_address,
    AnyAddress: parse_any_address,
    str: str,
    str | None: _parse_optional_text,
    int: _parse_int,
    float: _parse_float,
    float | None: _parse_optional_float,
    bool: _parse_bool,
}
"""By the type of a setting: reads the text of a flag or variable. A ValueError says what was expected."""

READERS: dict[Any, Callable[[Any], Any]] = {
    Path: lambda value: _parse_folder(_read_text(value)),
    Path | None: _read_optional_path,
    Address: lambda value: parse_address(_read_text(value)),
    AnyAddress: lambda value: parse_any_address(_read_text(value)),
    str: _read_text,
    str | None: _read_optional_text,
    int: _read_int,
    float: _read_float,
    float | None: _read_optional_float,
    bool: _read_bool,
}
"""By the type of a setting: checks what TOML made of it. A ValueError says what was expected."""
