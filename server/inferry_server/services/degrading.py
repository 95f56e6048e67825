"""Requests that a version has no room for, given to its variants where callers accept one."""

import math
from collections.abc import Callable, Sequence
from functools import partial

from inferry_proto.variants import Accepted
from inferry_server.batching.policy import Lane
from inferry_server.batching.relief import waits_s
from inferry_server.batching.request import InferenceRequest, Reply
from inferry_server.errors import (
    DeadlineExceededError,
    OverloadedError,
    QueueFullError,
    ShedError,
    ShuttingDownError,
)
from inferry_server.models.registry import ModelRegistry
from inferry_server.models.variants import in_order, share_a_device
from inferry_server.models.version import ServedVersion
from inferry_server.rpc.call import Cancel

CAPACITY = (OverloadedError, QueueFullError, ShedError)
"""Refusals of a request that another version may well have room for: neither late already, nor wrong in itself."""

_NO_ROOM = (*CAPACITY, DeadlineExceededError, ShuttingDownError)
_SHORTEST_S = 1e-6


class Degrading:
    """Finds the variants that may answer a request, and queues it for one. Thread-safe; nothing blocks.

    Called only where a version refuses or is relieved: any other request pays nothing for it.

    Args:
        registry: the models.
    """

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def variants(self, model: ServedVersion, accepted: Callable[[], Accepted | None]) -> Sequence[ServedVersion]:
        """The variants of a version that may answer a request and do not shed, the one to be asked first in front.

        Args:
            model: the version that refuses.
            accepted: tells which precisions the request accepts, None where it does not say; asked only where the
                version has variants.

        Raises:
            ServingError: from `accepted`.
        """
        served = self._served(model)
        served = tuple(one for one in served if not one.batcher.shedding.retry_after_s)  # guard: degrade-variant-sheds
        return _chosen(model, served, accepted)

    def left_s(
        self,
        model: ServedVersion,
        accepted: Callable[[], Accepted | None],
        *,
        rows: int,
        deadline: float | None,
        now: float,
    ) -> float:
        """Whether an interactive request goes to a variant though its version has not refused it (`relief.py`).

        Called only while the version is relieved.

        Args:
            model: the version.
            accepted: as in `variants`.
            rows: of the request.
            deadline: of the request.
            now: on the same clock.

        Returns:
            Seconds that what waits for both takes; 0 where the version may queue the request itself.

        Raises:
            ServingError: from `accepted`.
        """
        for variant in _chosen(model, self._served(model), accepted):
            if share_a_device(model, variant) and _takes(variant, rows):
                base, load = model.batcher.load(), variant.batcher.load()
                left_s = math.inf if deadline is None else deadline - now
                is_left = model.batcher.relief.leaves(base, load, left_s=left_s)
                return max(waits_s(base, load), _SHORTEST_S) if is_left else 0.0
        return 0.0

    def submit(
        self,
        refused: InferenceRequest,
        variants: Sequence[ServedVersion],
        reply_of: Callable[[ServedVersion, str], Reply],
        *,
        instead_of: ServedVersion,
    ) -> Cancel | None:
        """Queue a request for the first variant that has room for it.

        Args:
            refused: as the version has refused it.
            variants: from `variants`.
            reply_of: makes the reply of a variant, which is told the variant's precision too.
            instead_of: the version.

        Returns:
            What forgets the request; None where no variant has room.
        """
        for variant in variants:
            if not _takes(variant, refused.rows):
                continue
            assert variant.made_of is not None  # noqa: S101 - else it were no variant
            queued = _for_variant(refused, reply_of(variant, variant.made_of.precision), instead_of)
            _tell_trace(refused, variant)
            try:
                variant.batcher.submit(queued)
            except _NO_ROOM:
                _tell_trace(refused, instead_of)
                continue
            variant.batcher.compute_instead(instead_of.model, refused.rows)  # guard: degrade-turns
            instead_of.observer.request_degraded(variant.made_of.precision)
            if refused.lane is Lane.INTERACTIVE and share_a_device(instead_of, variant):  # guard: relief-not-for-bulk
                instead_of.batcher.relief.left(refused.arrived_at)
            return partial(variant.batcher.cancel, queued)
        return None

    def _served(self, model: ServedVersion) -> tuple[ServedVersion, ...]:
        """The variants of a version that are served and do not fail."""
        return tuple(one for one in self._registry.variants(model) if not one.batcher.fails())  # guard: degrade-fails


def _chosen(
    model: ServedVersion, served: Sequence[ServedVersion], accepted: Callable[[], Accepted | None]
) -> Sequence[ServedVersion]:
    """The variants that a request accepts, the first to be asked in front. Without any, nothing calls `accepted`."""
    if not served:
        return ()
    stated = accepted()
    return in_order(model, served, model.accepts if stated is None else stated)  # guard: degrade-request-first


def _takes(variant: ServedVersion, rows: int) -> bool:
    return rows <= max(1, variant.max_request_rows)  # guard: degrade-variant-rows


def _for_variant(refused: InferenceRequest, reply: Reply, version: ServedVersion) -> InferenceRequest:
    return InferenceRequest(
        inputs=refused.inputs,
        rows=refused.rows,
        reply=reply,
        deadline=refused.deadline,
        lane=refused.lane,
        trace=refused.trace,
        request_id=refused.request_id,
        arrived_at=refused.arrived_at,
        degraded_from=f"{version.model}/{version.version}",
    )


def _tell_trace(request: InferenceRequest, version: ServedVersion) -> None:
    if request.trace is not None:
        request.trace.concerns(version.model, version.version)
