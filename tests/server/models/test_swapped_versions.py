"""A request that meets a version that has just been replaced, and one that meets a server that goes away."""

from unittest.mock import Mock

import pytest

from inferry_server.errors import ModelNotReadyError, QueueFullError, ShuttingDownError
from inferry_server.models.registry import IndexEntry, ModelRegistry, State
from inferry_server.models.version import ServedVersion

REQUEST = Mock(request_id="")


def answering(served: ServedVersion | None) -> IndexEntry:
    state = State.UNAVAILABLE if served is None else State.READY
    return IndexEntry("m", 1, state, reason="unloaded", served=served)


class Versions:
    """A version whose queue is closed when a request meets it, and what the registry knows by then."""

    def __init__(self, *, replaced_by: Mock | None, replaced: bool = True) -> None:
        self.old, self.new, self.replaced = Mock(), replaced_by, replaced
        self.registry = ModelRegistry(lambda: None)
        self.registry.put(answering(self.old))

    def ask(self) -> str:
        return self.registry.with_version("m", "", self._use, origin=REQUEST)

    def _use(self, version: ServedVersion) -> str:
        if version is self.old:
            if self.replaced:
                self.registry.put(answering(self.new))
            raise ShuttingDownError
        return "answered"


def test_a_request_that_finds_a_queue_closed_goes_to_the_version_that_took_over() -> None:
    versions = Versions(replaced_by=Mock())
    assert versions.ask() == "answered"
    versions.old.observer.request_refused.assert_not_called()


def test_a_server_that_goes_away_says_so_and_is_not_asked_for_ever() -> None:
    versions = Versions(replaced_by=None, replaced=False)
    with pytest.raises(ShuttingDownError):
        versions.ask()
    versions.old.observer.request_refused.assert_called_once()


def test_a_version_that_went_without_a_successor_is_said_to_be_gone() -> None:
    with pytest.raises(ModelNotReadyError, match="unloaded"):
        Versions(replaced_by=None).ask()


def test_what_a_version_refuses_is_counted_there_and_is_not_tried_again() -> None:
    version, registry = Mock(), ModelRegistry(lambda: None)
    registry.put(answering(version))
    refuse = Mock(side_effect=QueueFullError("rows", limit=1, actual=2, retry_after_s=0.0))
    with pytest.raises(QueueFullError):
        registry.with_version("m", "", refuse, origin=REQUEST)
    refuse.assert_called_once_with(version)
    version.observer.request_refused.assert_called_once_with(refuse.side_effect, REQUEST)
