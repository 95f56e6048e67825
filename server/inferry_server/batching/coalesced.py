"""Requests of one row that are alike, queued as one: admitted, put into a batch and taken from it together.

Each of them has its own deadline, client and reply all the same. So what is queued has the earliest deadline, and is
taken apart into requests of their own, admitted as they are, as soon as they may fare differently: one is cancelled
while it waits, the whole would be late, its batch fails, or the queue closes.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from inferry_proto.datatypes import Arrays
from inferry_server.batching.policy import Lane
from inferry_server.batching.request import InferenceRequest, InputsForm, Reply


class Member:
    """One of them.

    Attributes:
        row: of the inputs, and so of the outputs.
        request_id: as the client chose it.
        arrived_at: when it came, on the monotonic clock.
        deadline: on that clock; None for no deadline.
        single: itself, once the whole was taken apart.
    """

    __slots__ = ("arrived_at", "deadline", "request_id", "row", "single")

    def __init__(self, row: int, request_id: str, arrived_at: float, deadline: float | None) -> None:
        self.row = row
        self.request_id = request_id
        self.arrived_at = arrived_at
        self.deadline = deadline
        self.single: InferenceRequest | None = None


M = TypeVar("M", bound=Member)


class Members(Generic[M]):
    """Those of them that nobody has cancelled.

    Attributes:
        left: all that are; no longer changed once what was queued is settled.
    """

    __slots__ = ("left",)

    def __init__(self, left: tuple[M, ...]) -> None:
        self.left = left

    def without(self, member: Member) -> None:
        """Let one go, which was cancelled."""
        self.left = tuple([one for one in self.left if one is not member])


class CoalescedRequest(InferenceRequest):
    """What is queued for them.

    Args:
        inputs: by name, a row for each.
        members: all of them.
        reply: replies to those that are left.
        reply_of: how one of them gets its outcome by itself.
        lane: in which all of them wait.
        form: of the inputs.
    """

    __slots__ = ("_reply_of", "members")

    def __init__(
        self,
        inputs: Arrays,
        members: Members[Any],
        reply: Reply,
        reply_of: Callable[[Any], Reply],
        lane: Lane,
        form: InputsForm,
    ) -> None:
        left = members.left
        deadline = min([one.deadline for one in left if one.deadline is not None], default=None)
        arrived_at = min([one.arrived_at for one in left])
        super().__init__(inputs, len(left), reply, deadline, lane, None, "", arrived_at, form)
        self.members = members
        self.is_coalesced = True  # guard: coalesced-no-probe
        self._reply_of = reply_of

    def apart(self) -> list[InferenceRequest]:
        """Those that are left, each by itself, as admitted as they are together. This one is settled from now on."""
        self.settled = True
        form = InputsForm(self.nbytes // self.rows, self.item_shapes, self.shape_key)
        singles = []
        for member in self.members.left:
            row, reply = member.row, self._reply_of(member)
            inputs = {name: array[row : row + 1] for name, array in self.inputs.items()}
            single = member.single = InferenceRequest(
                inputs, 1, reply, member.deadline, self.lane, None, member.request_id, member.arrived_at, form
            )
            single.enqueued_at, single.rows_ahead = self.enqueued_at, self.rows_ahead
            singles.append(single)
        return singles


def requests_in(request: InferenceRequest) -> int:
    """How many requests of clients this one is."""
    return len(request.members.left) if isinstance(request, CoalescedRequest) else 1
