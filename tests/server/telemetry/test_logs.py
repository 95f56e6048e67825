"""What stands in the log, whatever stands in names and requests."""

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.telemetry.logs import JsonFormatter, TextFormatter


def logger_into(file: io.TextIOBase, formatter: logging.Formatter) -> logging.Logger:
    logger = logging.Logger("a test")
    handler = logging.StreamHandler(file)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    return logger


@given(name=st.text(st.characters(codec=None)), value=st.text(st.characters(codec=None)))
def test_a_record_is_one_line_of_what_can_be_printed_and_written(name: str, value: str) -> None:
    """Also surrogates, which stand for bytes of a file's name that are not UTF-8."""
    written = io.BytesIO()
    file = io.TextIOWrapper(written, encoding="utf-8", write_through=True, newline="")
    logger_into(file, TextFormatter()).warning("%s is missing", name, extra={"model": value})
    line = written.getvalue().decode()
    assert line.endswith("\n")
    assert line[:-1].isprintable()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("models/größe/1", "models/größe/1"),
        ("a\n2026-01-01 INFO    model loaded", r"a\n2026-01-01 INFO    model loaded"),
        ("\x1b[2J\r\x07", r"\x1b[2J\r\x07"),
        ("\u202eb\udcff", r"\u202eb\udcff"),
    ],
)
def test_line_breaks_and_orders_to_a_terminal_are_escaped(name: str, shown: str) -> None:
    file = io.StringIO()
    logger_into(file, TextFormatter()).error("%s cannot be read", name)
    assert file.getvalue().endswith(f" ERROR   {shown} cannot be read\n")


def test_a_traceback_stands_below_its_line() -> None:
    file = io.StringIO()
    logger = logger_into(file, TextFormatter())
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("failed")
    first, second, *_ = file.getvalue().splitlines()
    assert first.endswith("ERROR   failed")
    assert second.startswith("Traceback")


def test_a_record_in_json_is_one_line_too() -> None:
    file = io.StringIO()
    logger_into(file, JsonFormatter()).warning("a\nb\udcff", extra={"model": "c\nd"})
    (line,) = file.getvalue().splitlines()
    assert json.loads(line)["message"] == "a\nb\udcff"
