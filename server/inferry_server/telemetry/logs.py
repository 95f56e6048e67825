"""Structured logs on standard error: text for people, JSON for machines."""

import datetime
import json
import logging
import sys
import warnings
from dataclasses import dataclass
from typing import Any

LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")
_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@dataclass(frozen=True)
class LogChoice:
    """What is logged, and how.

    Attributes:
        info: whether records of this severity are logged, as `warning` and `error` say of theirs.
        verbose_level: above 0, debug records too.
        log_format: one of `LOG_FORMATS`.
    """

    info: bool
    warning: bool
    error: bool
    verbose_level: int
    log_format: str

    def shows(self, record: logging.LogRecord) -> bool:
        """Whether a record is logged; it is a logging filter."""
        if record.levelno >= logging.ERROR:
            return self.error
        if record.levelno >= logging.WARNING:
            return self.warning
        return self.info if record.levelno >= logging.INFO else self.verbose_level > 0

    @property
    def level(self) -> int:
        """Below this nothing is logged."""
        if self.verbose_level > 0:
            return logging.DEBUG
        shown = {logging.INFO: self.info, logging.WARNING: self.warning, logging.ERROR: self.error}
        return next((level for level, is_shown in shown.items() if is_shown), logging.CRITICAL + 1)


def choose_logging(*, log_format: str, level: str) -> LogChoice:
    """Everything from a level (`debug`, `info`, `warning`, `error`) on."""
    least = LOG_LEVELS.index(level)
    return LogChoice(
        info=least <= LOG_LEVELS.index("info"),
        warning=least <= LOG_LEVELS.index("warning"),
        error=True,
        verbose_level=int(level == "debug"),
        log_format=log_format,
    )


def configure_logging(choice: LogChoice) -> None:
    """Send the chosen records of the process to standard error in one format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if choice.log_format == "json" else TextFormatter())
    handler.addFilter(choice.shows)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(choice.level)
    # Pillow warns of each tag of a picture that it passes over: a caller would write tens of thousands of lines.
    warnings.filterwarnings("ignore", module=r"PIL\.")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and what was passed as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        line = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
        line |= {"message": record.getMessage()} | _extra(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """`time level message key=value…` in one line, with the traceback below where there is one.

    Names of files and what clients send may contain line breaks and escape sequences: written as they are, they would
    be further lines, or orders to the terminal of whoever reads the log.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        extra = "".join(f" {key}={value}" for key, value in _extra(record).items())
        line = f"{_time(record)} {record.levelname:<7} {_in_one_line(f'{record.getMessage()}{extra}')}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _in_one_line(text: str) -> str:
    """A text with escapes, as Python writes them, for what cannot be printed."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)  # guard: log-one-line


def _time(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return moment.isoformat(timespec="milliseconds")


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}
