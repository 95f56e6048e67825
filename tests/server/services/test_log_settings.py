"""What is logged can be asked for by everybody, and changed by clients where a setting says so."""

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from inferry_proto import open_inference_pb2 as pb
from inferry_server.errors import InvalidRequestError, NotAllowedError
from inferry_server.services.log_settings import LogSettingsService
from inferry_server.telemetry.logs import LOG_LEVELS, LogChoice, choose_logging, configure_logging
from testkit.calls import FakeCall

KINDS = {bool: "bool_param", int: "uint32_param", str: "string_param"}


def ask(service: LogSettingsService, **settings: Any) -> dict[str, Any]:
    request = pb.LogSettingsRequest()
    for name, value in settings.items():
        setattr(request.settings[name], KINDS[type(value)], value)
    call = FakeCall()
    service.log_settings(call, request.SerializeToString())
    response = pb.LogSettingsResponse.FromString(call.messages[0])
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "") for name, value in response.settings.items()
    }


def service(applied: list[LogChoice], *, allowed: bool = True) -> LogSettingsService:
    return LogSettingsService(choose_logging(log_format="text", level="info"), applied.append, allowed=allowed)


AT_START = {"log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0, "log_format": "text"}


def test_asking_tells_every_setting_and_changes_nothing() -> None:
    applied: list[LogChoice] = []
    assert ask(service(applied, allowed=False)) == AT_START
    assert not applied


def test_a_change_holds_and_is_told() -> None:
    applied: list[LogChoice] = []
    changed = service(applied)
    expected = AT_START | {"log_info": False, "log_verbose_level": 2, "log_format": "json"}
    assert ask(changed, log_info=False, log_verbose_level=2, log_format="json") == expected
    assert ask(changed) == expected
    assert applied == [LogChoice(info=False, warning=True, error=True, verbose_level=2, log_format="json")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"log_file": "x"}, "'log_file' is unknown; this server has log_info, log_warning, log_error, log_verbose_l"),
        ({"log_info": 1}, "'log_info' must be bool_param, not uint32_param"),
        ({"log_verbose_level": True}, "'log_verbose_level' must be uint32_param, not bool_param"),
        ({"log_format": "ISO8601"}, "'log_format' must be one of text, json, not 'ISO8601'"),
        ({"log_info": False, "log_format": "xml"}, "not 'xml'"),
    ],
)
def test_a_wrong_setting_is_named_and_none_of_the_request_holds(settings: dict[str, Any], message: str) -> None:
    applied: list[LogChoice] = []
    asked = service(applied)
    with pytest.raises(InvalidRequestError, match=message):
        ask(asked, **settings)
    assert not applied
    assert ask(asked) == AT_START


def test_a_setting_without_a_value_is_refused() -> None:
    request = pb.LogSettingsRequest()
    request.settings["log_info"].SetInParent()
    with pytest.raises(InvalidRequestError, match="'log_info' must be bool_param, not empty"):
        service([]).log_settings(FakeCall(), request.SerializeToString())


def test_a_change_that_is_not_allowed_names_the_setting() -> None:
    applied: list[LogChoice] = []
    with pytest.raises(NotAllowedError, match="--remote-logging-control"):
        ask(service(applied, allowed=False), log_info=False)
    assert not applied


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def logged(capsys: pytest.CaptureFixture[str], choice: LogChoice) -> list[str]:
    """The severities that come out."""
    configure_logging(choice)
    for level in LOG_LEVELS:
        logging.getLogger("test").log(getattr(logging, level.upper()), "said")
    return [line.split()[1].lower() for line in capsys.readouterr().err.splitlines()]


def test_what_pillow_thinks_of_pictures_is_not_printed(root: logging.Logger) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        configure_logging(choose_logging(log_format="text", level="info"))
        for module in ("PIL.TiffImagePlugin", "elsewhere"):
            warnings.warn_explicit("odd", UserWarning, module, 1, module=module)
    assert [warning.filename for warning in caught] == ["elsewhere"]


@pytest.mark.parametrize("level", LOG_LEVELS)
def test_a_level_logs_itself_and_what_is_more_severe(
    root: logging.Logger, capsys: pytest.CaptureFixture[str], level: str
) -> None:
    expected = list(LOG_LEVELS[LOG_LEVELS.index(level) :])
    assert logged(capsys, choose_logging(log_format="text", level=level)) == expected


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (LogChoice(info=False, warning=True, error=False, verbose_level=1, log_format="text"), ["debug", "warning"]),
        (LogChoice(info=True, warning=False, error=True, verbose_level=0, log_format="text"), ["info", "error"]),
        (LogChoice(info=False, warning=False, error=False, verbose_level=0, log_format="text"), []),
    ],
)
def test_each_severity_can_be_chosen_alone(
    root: logging.Logger, capsys: pytest.CaptureFixture[str], choice: LogChoice, expected: list[str]
) -> None:
    assert logged(capsys, choice) == expected
