"""ModelInfer requests that came together and are alike, queued as one: what a request costs then, they share.

They are alike if they differ in their ids and in the data of their one tensor alone, of one row. Where they are not
admitted as one, each of them is by itself, refused, or left to a variant.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from inferry_proto.datatypes import Arrays
from inferry_server.batching.coalesced import CoalescedRequest, Member, Members
from inferry_server.batching.policy import BULK
from inferry_server.batching.request import DeadlinePolicy, InputsForm, Reply, Timing
from inferry_server.errors import ServingError
from inferry_server.models.registry import ModelRegistry
from inferry_server.models.version import ServedVersion
from inferry_server.rpc.call import Arrived, Call, Outcome
from inferry_server.rpc.receivers import end_with
from inferry_server.wire.encode import ResponseTemplate
from inferry_server.wire.reading import IncomingRequest, InferPlan, RequestReader

_MOST = 8  # requests; more spare little
# Of the largest batch, what one may have: it joins a batch whole, so that less than this of a batch stays empty.
_SHARE = 4

Alone = Callable[[Call, IncomingRequest], None]
"""Queues a request by itself, and tells its call of what keeps it from that."""


class _Waiting(Member):
    """A request, and the call that brought it."""

    __slots__ = ("call",)

    def __init__(self, row: int, call: Call, incoming: IncomingRequest, deadline: float | None) -> None:
        super().__init__(row, incoming.request_id, incoming.arrived_at, deadline)
        self.call = call


class _Kind(NamedTuple):
    """What like requests have in common.

    Attributes:
        model: that answers them.
        plan: how they are read and answered.
    """

    model: ServedVersion
    plan: InferPlan


_Alike = list[tuple[Call, IncomingRequest]]


class Coalescing:
    """Queues requests that came together. Thread-safe.

    Args:
        registry: the models.
        reader: of requests.
        deadlines: of requests.
        alone: called on the thread that has the requests.
        reply: makes the reply of one request, given its outcome and how it is encoded.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        reader: RequestReader,
        deadlines: DeadlinePolicy,
        alone: Alone,
        reply: Callable[[Outcome, Callable[[Arrays], bytes]], Reply],
        clock: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._reader = reader
        self._deadlines = deadlines
        self._alone = alone
        self._reply = reply
        self._clock = clock

    def submit(self, arrived: Sequence[Arrived]) -> None:
        """Queue requests: those that are alike as one, the others one by one."""
        now = self._clock()
        groups: dict[tuple[bytes, int], tuple[_Kind | None, _Alike]] = {}
        for call, message in arrived:
            try:
                incoming = self._reader.receive(message, now - call.waited_s, call.trace)
            except Exception as error:  # noqa: BLE001 - no error may leave a call without a reply
                end_with(call, error)
                continue
            header, group = incoming.header, None
            if header is not None and call.trace is None:  # guard: coalesced-traced
                key = header, len(message)
                group = groups.get(key)
                if group is None:
                    group = groups[key] = self._kind_of(incoming), []
            if group is None or group[0] is None:
                self._alone(call, incoming)
            else:
                group[1].append((call, incoming))
        for kind, alike in groups.values():
            if kind is not None:
                most = max(1, min(_MOST, kind.model.policy.max_batch_size // _SHARE))  # guard: coalesced-fill
                for start in range(0, len(alike), most):
                    self._queue(alike[start : start + most], kind)

    def _kind_of(self, incoming: IncomingRequest) -> _Kind | None:
        """What requests like this one have in common; None where they cannot be queued as one now."""
        model = self._registry.only_version(incoming.model_name, incoming.model_version)
        if model is None or not model.batcher.coalesces():
            return None
        plan = self._reader.plan_of(incoming, model)
        # Bulk work may have batches of any size, which cut what is larger.
        return None if plan is None or plan.lane is BULK else _Kind(model, plan)  # guard: coalesced-no-bulk

    def _queue(self, alike: _Alike, kind: _Kind) -> None:
        model, plan = kind
        batcher, inputs = model.batcher, None
        if len(alike) > 1 and batcher.coalesces():
            inputs = plan.read_rows([incoming for _, incoming in alike])
        if inputs is None:
            self._one_by_one(alike)
            return
        waiting: list[_Waiting] = []
        for call, incoming in alike:
            deadline = self._deadlines.deadline(
                incoming.arrived_at,
                call_deadline=call.deadline,
                timeout_s=plan.timeout_s,
                model_objective_s=model.latency_objective_s,
            )
            waiting.append(_Waiting(len(waiting), call, incoming, deadline))
        members = Members(tuple(waiting))
        nbytes, item_shapes, shape_key = plan.form
        request = CoalescedRequest(
            inputs,
            members,
            _CoalescedReply(members, plan.response),
            partial(self._reply_of, plan.response),
            plan.lane,
            InputsForm(nbytes * len(alike), item_shapes, shape_key),
        )
        try:
            batcher.submit(request)
        except ServingError:  # of one of them, or of all: each hears of its own
            self._one_by_one(alike)
            return
        cancel = batcher.cancel_member
        for one in waiting:
            one.call.on_cancel(partial(cancel, request, one))  # guard: coalesced-cancelled

    def _reply_of(self, response: ResponseTemplate, one: _Waiting) -> Reply:
        return self._reply(one.call, partial(response.encode, one.request_id))

    def _one_by_one(self, alike: _Alike) -> None:
        for call, incoming in alike:
            self._alone(call, incoming)


class _CoalescedReply:
    """Takes the outputs from the batcher and replies to each."""

    __slots__ = ("_members", "_response")

    def __init__(self, members: Members[_Waiting], response: ResponseTemplate) -> None:
        self._members = members
        self._response = response

    def complete(
        self,
        outputs: Arrays,
        timing: Timing,  # noqa: ARG002 - the protocol has no field for it
    ) -> Callable[[], object]:
        left = self._members.left
        return partial(_send, left, self._response.encode_rows([(one.request_id, one.row) for one in left], outputs))

    def fail(self, error: Exception) -> None:
        for one in self._members.left:
            one.call.fail(error)


def _send(members: Sequence[_Waiting], replies: Sequence[bytes]) -> None:
    for one, reply in zip(members, replies, strict=True):
        one.call.reply(reply)
