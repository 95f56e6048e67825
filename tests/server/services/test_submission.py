"""A request that meets a version that has just been replaced, and one that meets a server that goes away."""

from typing import cast
from unittest.mock import Mock

import pytest

from inferry_server.errors import ModelNotReadyError, ShuttingDownError
from inferry_server.models.version import ServedVersion
from inferry_server.services.reading import IncomingRequest
from inferry_server.services.submission import with_version

OLD, NEW = (cast("ServedVersion", Mock()) for _ in range(2))  # their observers count refusals
REQUEST = IncomingRequest(b"")


def use(version: ServedVersion) -> str:
    if version is OLD:
        raise ShuttingDownError
    return "answered"


def test_a_request_that_finds_a_queue_closed_goes_to_the_version_that_took_over() -> None:
    found = iter([OLD, NEW, NEW])
    assert with_version(lambda: next(found), use, REQUEST) == "answered"


def test_a_server_that_goes_away_says_so_and_is_not_asked_for_ever() -> None:
    asked = iter([OLD, OLD])
    with pytest.raises(ShuttingDownError):
        with_version(lambda: next(asked), use, REQUEST)


def test_a_version_that_went_without_a_successor_is_said_to_be_gone() -> None:
    asked = iter([OLD])

    def find() -> ServedVersion:
        try:
            return next(asked)
        except StopIteration:
            raise ModelNotReadyError("m", "1", state="UNAVAILABLE", reason="unloaded") from None

    with pytest.raises(ModelNotReadyError, match="unloaded"):
        with_version(find, use, REQUEST)
