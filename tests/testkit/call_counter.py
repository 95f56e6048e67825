"""Calls of functions, counted."""

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType

from testkit import played_grpc


class CallCounter:
    """Counts the functions that are called, Python's and C's, but for those of the played gRPC."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if event in ("call", "c_call") and frame.f_code.co_filename != played_grpc.__file__:
            self.counted[event] += 1

    def count(self, act: Callable[[], object]) -> int:
        """How many, while something is done on this thread."""
        sys.setprofile(self)
        try:
            act()
        finally:
            sys.setprofile(None)
        return self.counted.total()
