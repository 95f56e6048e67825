"""A device that misbehaves on demand: `y = 2 x`, with too little memory, errors, slow copies or wrong answers."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inferry_proto.datatypes import Arrays
from inferry_server.runtime.device_errors import OUT_OF_MEMORY, CudaCallError
from inferry_server.runtime.device_memory import Bytes, HostMemory

ILLEGAL_ACCESS = 700


@dataclass
class FakeDevice:
    """Computes `y = 2 x` in one buffer, and notes who is in it.

    Attributes:
        memory_rows: a batch of more does not fit.
        error: raised by every run while it is set.
        wrong_replays: what is recorded answers something else.
        entered: released by each run when it holds the buffer.
        may_go: a run waits for it, holding the buffer, as a slow copy does.
        staged: the memory that it stages batches in; empty where it stages none.
        runs_staged: of each run, whether its inputs were there already.
    """

    memory_rows: int = 1 << 30
    error: Exception | None = None
    wrong_replays: bool = False
    records: bool = False
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    may_go: threading.Event = field(default_factory=threading.Event)
    sizes: list[int] = field(default_factory=list)
    recorded: set[int] = field(default_factory=set)
    recorded_on: set[str] = field(default_factory=set)
    calls: int = 0
    inside: int = 0
    most_inside: int = 0
    gave_back: int = 0
    closed: bool = False
    runs_staged: list[bool] = field(default_factory=list)
    staged: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 1), np.float32))

    def __post_init__(self) -> None:
        self.may_go.set()

    def activate(self) -> None:
        self.recorded.clear()

    def staging(self, rows: int) -> Arrays | None:
        """Rows of one array, for batches that fit."""
        return {"x": self.staged[:rows]} if rows <= len(self.staged) else None

    def run_whole(self, inputs: Arrays) -> Arrays:
        return self.run(inputs)

    def run(self, inputs: Arrays) -> Arrays:
        self.calls += 1
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.entered.release()
        self.may_go.wait()
        try:
            x = inputs["x"]
            if self.error is not None:
                raise self.error
            if len(x) > self.memory_rows:
                raise CudaCallError("cudaMalloc", OUT_OF_MEMORY, "out of memory")
            self.sizes.append(len(x))
            self.runs_staged.append(np.shares_memory(x, self.staged))
            wrong = 1 if self.wrong_replays and len(x) in self.recorded else 0
            return {"y": 2 * x + wrong}
        finally:
            self.inside -= 1

    def record(self, inputs: Arrays) -> Arrays | None:
        if not self.records:
            return None
        self.recorded.add(len(inputs["x"]))
        self.recorded_on.add(threading.current_thread().name)
        return self.run(inputs)

    def give_back_memory(self) -> None:
        self.gave_back += 1

    def close(self) -> None:
        self.closed = True


class FaultyMemory(HostMemory):
    """The CPU as a device, with faults: for sessions of ONNX Runtime that are real.

    Attributes:
        fail_with: raised by the next waits, first to last; None for one that goes well.
        flip: added to every byte that comes out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fail_with: list[Exception | None] = []
        self.always_fail_with: Exception | None = None
        self.flip = 0
        self.closed = False

    def synchronize(self) -> None:
        error = self.fail_with.pop(0) if self.fail_with else self.always_fail_with
        if error is not None:
            raise error

    def copy_out(self, target: Bytes, address: int) -> None:
        super().copy_out(target, address)
        if self.flip:
            target ^= np.uint8(self.flip)

    def allocate(self, size: int) -> int:
        self.closed = False
        return super().allocate(size)

    def close(self) -> None:
        super().close()
        self.closed = True


def rows(values: Sequence[float]) -> Arrays:
    """Inputs of FakeDevice, one value a row."""
    return {"x": np.array(values, np.float32)[:, None]}
