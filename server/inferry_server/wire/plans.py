"""What requests with the same header have in common, found out once.

The first request of a kind is decoded and checked in full (`decode.py`). What that told is kept under
the bytes of its header, and holds for every request that repeats them: then its tensors need only be
as large as they were. Whatever differs in any way is decoded in full again, and so hears of its
faults in the protocol's order.
"""

from typing import Any

import numpy as np

from inferry_proto.datatypes import Arrays
from inferry_server.signature import Signature
from inferry_server.wire.decode import DecodedRequest
from inferry_server.wire.encode import ResponseTemplate
from inferry_server.wire.layout import MessageLayout

_MOST_PLANS = 1024  # clients that vary more are decoded in full
_LARGEST_HEADER = 4096  # bytes


class InferPlan:
    """How to read requests with one header, and to answer them. Immutable but for what it remembers.

    Args:
        decoded: the first of them.
        response: the template of the answers.
        signature: what it was checked against.
    """

    __slots__ = ("_sizes", "_tensors", "priority", "response", "rows", "signature", "timeout_s")

    def __init__(self, decoded: DecodedRequest, response: ResponseTemplate, signature: Signature) -> None:
        self._tensors = [(name, array.shape, array.dtype) for name, array in decoded.inputs.items()]
        self._sizes = [array.nbytes for array in decoded.inputs.values()]
        self.response = response
        self.signature = signature
        self.rows = decoded.rows
        self.timeout_s = decoded.timeout_s
        self.priority = decoded.priority

    def holds_for(self, layout: MessageLayout) -> bool:
        """Whether it holds for every request with this header, which is that of the first one.

        It does not where data lies outside raw contents (their bytes are part of the header, or of
        shared memory), or where sizes are not those of the shape, as with BYTES.
        """
        texts = any(dtype.hasobject for _, _, dtype in self._tensors)
        return (
            not texts and len(layout.raw_sizes) == len(self._tensors) and len(layout.header) <= _LARGEST_HEADER
        )  # guard: plans-texts-have

    def read(self, layout: MessageLayout, message: bytes) -> Arrays | None:
        """The inputs by name, viewing the message wherever they begin in it.

        Returns:
            None where their data has another size than it must.
        """
        if layout.raw_sizes != self._sizes:  # guard: plans-data-large
            return None
        inputs: dict[str, np.ndarray[Any, Any]] = {}
        for (name, shape, dtype), start in zip(self._tensors, layout.raw_starts, strict=True):
            inputs[name] = np.ndarray(shape, dtype, message, start)
        return inputs


class PlanCache:
    """Plans by version and header. Any thread may call; at worst a plan is made twice."""

    def __init__(self) -> None:
        self._plans: dict[tuple[str, bytes], InferPlan] = {}

    def __len__(self) -> int:
        return len(self._plans)

    def get(self, version: str, header: bytes, signature: Signature) -> InferPlan | None:
        """The plan for a header.

        Args:
            version: that answers; the header names the model.
            header: of the request.
            signature: of the version as it is served now; a plan that was checked against another, of
                one loaded before, is none.
        """
        plan = self._plans.get((version, header))  # guard: cost-requests-asked
        return plan if plan is not None and plan.signature is signature else None  # guard: plans-they-hold

    def learn(self, version: str, layout: MessageLayout, plan: InferPlan) -> None:
        """Keep a plan, if it holds for other requests than the one it was made from."""
        if not plan.holds_for(layout):
            return
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()  # rare, and cheaper than to keep account of every use
        self._plans[version, layout.header] = plan
