"""What commands write for people and programs. It is an error if stdout cannot be written."""

import json
import os
import sys
import unicodedata
from typing import Any

from inferry_client.errors import InferryError


class OutputError(InferryError):
    """Stdout is closed, or its disk is full."""


def shown(text: str) -> str:
    """A name or message from elsewhere, on one line: what moves a terminal's cursor or turns its text is escaped."""
    if text.isprintable():
        return text
    return "".join(c if _is_shown(c) else c.encode("unicode_escape").decode() for c in text)


def complain(text: str) -> None:
    """Print one line on stderr, where there is one."""
    if sys.stderr is not None:  # else `print` would take stdout
        print(f"inferry: {shown(text)}", file=sys.stderr, flush=True)


def _is_shown(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def say(text: str) -> None:
    """Print lines at once; what the terminal's encoding lacks is escaped.

    Raises:
        OutputError: they cannot be written.
        BrokenPipeError: whoever read them has seen enough.
    """
    if sys.stdout is None:
        raise OutputError("the output cannot be written: stdout is closed")
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # takes what Python still writes, at exit too
        if isinstance(error, BrokenPipeError):
            raise
        raise OutputError(f"the output cannot be written: {error.strerror}") from error


def say_json(document: Any) -> None:
    """Print a document as JSON."""
    say(json.dumps(document, indent=2, allow_nan=False))


def say_json_line(document: Any) -> None:
    """Print a document as one line of JSON."""
    say(json.dumps(document, allow_nan=False))
