"""Reaching a version that may be replaced at any moment."""

from collections.abc import Callable
from typing import TypeVar

from inferry_server.errors import ServingError, ShuttingDownError
from inferry_server.models.version import ServedVersion

T = TypeVar("T")


def with_version(find: Callable[[], ServedVersion], use: Callable[[ServedVersion], T]) -> T:
    """Use the version that answers now; where it stopped answering in between, the one that does.

    A version leaves the registry before its queue closes, so a request that finds the queue closed
    need only look again: no swap fails a request. What is refused is counted here, where a request
    meets its version.

    Raises:
        ShuttingDownError: the version is still the one, so the server itself is going away.
        ServingError: from `find` and `use`.
    """
    while True:
        version = find()
        try:
            return use(version)
        except ShuttingDownError as refusal:
            if find() is version:  # guard: versions-request-meets, versions-server-goes
                version.observer.request_refused(refusal)
                raise
        except ServingError as refusal:
            version.observer.request_refused(refusal)
            raise
