"""inferry.v1.Diagnostics: why requests were late or refused."""

import time
from collections.abc import Callable, Sequence

from inferry_proto import diagnostics_pb2 as pb
from inferry_proto.services import DIAGNOSTICS
from inferry_server.errors import ModelNotFoundError
from inferry_server.lateness.cause import main_cause
from inferry_server.lateness.record import LateRequest, RideInBatch
from inferry_server.models.registry import ModelRegistry
from inferry_server.models.version import ServedVersion
from inferry_server.rpc.call import Call, UnaryHandler
from inferry_server.wire.messages import parse


class DiagnosticsService:
    """Answers from what is kept in memory, at once. Thread-safe.

    Args:
        registry: the models.
        clock: monotonic seconds.
        wall_clock: seconds since the epoch.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._wall_clock = wall_clock

    def unary_handlers(self) -> dict[str, UnaryHandler]:
        """Handlers by path."""
        return {DIAGNOSTICS["Explain"].path: self.explain}

    def explain(self, call: Call, message: bytes) -> None:
        """The slowest and the refused requests of one model, or of all."""
        request = parse(pb.ExplainRequest, message)
        call.reply(
            self.explained(request.model_name, request.model_version, limit=request.limit or None).SerializeToString()
        )

    def explained(self, model: str = "", version: str = "", *, limit: int | None = None) -> pb.ExplainResponse:
        """What is kept of the late requests of the versions that answer.

        Args:
            model: its name; empty for every one.
            version: a number or a label; empty for every one.
            limit: of the slowest, and of the refused requests; None: all that are kept.

        Raises:
            ModelNotFoundError: no such model, or no such version of it answers.
        """
        epoch_s = self._wall_clock() - self._clock()
        versions = self._versions(model, version)
        return pb.ExplainResponse(
            versions=[
                pb.ExplainedVersion(
                    model_name=served.model,
                    model_version=served.version,
                    slowest=_messages(served.observer.late.slowest()[:limit], epoch_s),
                    refused=_messages(served.observer.late.refused()[:limit], epoch_s),
                )
                for served in versions
            ]
        )

    def message(self, request: LateRequest) -> pb.LateRequest:
        """What is told of a late request; the same whenever it is asked for."""
        return _message(request, self._wall_clock() - self._clock())

    def _versions(self, model: str, version: str) -> Sequence[ServedVersion]:
        if not model:
            return self._registry.served()
        entry = self._registry.model(model)
        number = str(entry.labels.get(version, version)) if entry is not None else version
        found = [one for one in self._registry.served() if one.model == model and version in ("", one.version)]
        found = found or [one for one in self._registry.served() if (one.model, one.version) == (model, number)]
        if entry is None or (version and not found):
            raise ModelNotFoundError(model, version)
        return found


def _messages(requests: Sequence[LateRequest], epoch_s: float) -> list[pb.LateRequest]:
    return [_message(request, epoch_s) for request in requests]


def _message(request: LateRequest, epoch_s: float) -> pb.LateRequest:
    """A request as the contract has it.

    Args:
        request: that was late.
        epoch_s: what is added to monotonic seconds for seconds since the epoch.
    """
    return pb.LateRequest(
        id=request.request_id,
        trace_id=request.trace_id,
        cause=main_cause(request),
        reason=request.reason,
        ended_at_ms=round((epoch_s + request.ended_at) * 1e3),
        rows=request.rows,
        lane=request.lane.value,
        rows_ahead=request.rows_ahead,
        total_us=_us(request.total_s),
        read_us=_us(request.read_s),
        queue_us=_us(request.queue_s),
        turn_us=_us(request.turn_s),
        compute_us=_us(request.compute_s),
        reply_us=_us(request.reply_s),
        deadline_us=None if request.deadline_s is None else _us(request.deadline_s),
        batch=None if request.batch is None else _ride(request.batch),
    )


def _ride(batch: RideInBatch) -> pb.RideInBatch:
    return pb.RideInBatch(
        rows=batch.rows,
        padded_rows=batch.padded_rows,
        requests=batch.requests,
        expected_us=_us(batch.expected_s),
    )


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
