"""What requests with the same header have in common, found out once.

The first request of a kind is decoded and checked in full (`codec.py`). What that told is kept under
the bytes of its header, and holds for every request that repeats them: then its tensors need only be
as large as they were. Whatever differs in any way is decoded in full again, and so hears of its
faults in the protocol's order.
"""

import numpy as np

from inferry_server.codec import Arrays, DecodedRequest
from inferry_server.encoding import ResponseTemplate
from inferry_server.message_layout import MessageLayout

_MOST_PLANS = 128  # of one version; clients that vary more are decoded in full
_LARGEST_HEADER = 4096  # bytes


class InferPlan:
    """How to read requests with one header, and to answer them. Immutable but for what it remembers."""

    __slots__ = ("_dtypes", "_names", "_shapes", "_sizes", "priority", "response", "rows", "timeout_s")

    def __init__(self, decoded: DecodedRequest, response: ResponseTemplate) -> None:
        self._names = list(decoded.inputs)
        self._shapes = [array.shape for array in decoded.inputs.values()]
        self._dtypes = [array.dtype for array in decoded.inputs.values()]
        self._sizes = [array.nbytes for array in decoded.inputs.values()]
        self.response = response
        self.rows = decoded.rows
        self.timeout_s = decoded.timeout_s
        self.priority = decoded.priority

    def read(self, layout: MessageLayout, message: bytes) -> Arrays | None:
        """The inputs by name, viewing the message; None where their data has another size than it must."""
        if [size for _, size in layout.raw] != self._sizes:
            return None
        return {
            name: np.ndarray(shape, dtype, message, start)
            for name, shape, dtype, (start, _) in zip(self._names, self._shapes, self._dtypes, layout.raw, strict=True)
        }


class PlanCache:
    """The plans of one version, by header. Any thread may call; at worst a plan is made twice."""

    def __init__(self) -> None:
        self._plans: dict[bytes, InferPlan] = {}

    def __len__(self) -> int:
        return len(self._plans)

    def get(self, header: bytes) -> InferPlan | None:
        """The plan for a header, if it was seen."""
        return self._plans.get(header)

    def learn(self, layout: MessageLayout, decoded: DecodedRequest, response: ResponseTemplate | None) -> None:
        """Keep what a request told that was decoded in full, if it holds for others like it.

        It does not where data lies outside raw contents (their bytes are part of the header, or of
        shared memory), or where sizes are not those of the shape, as with BYTES.
        """
        if response is None or len(layout.raw) != len(decoded.inputs) or len(layout.header) > _LARGEST_HEADER:
            return
        if any(array.dtype.hasobject for array in decoded.inputs.values()):
            return
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()  # rare, and cheaper than to keep account of every use
        self._plans[layout.header] = InferPlan(decoded, response)
