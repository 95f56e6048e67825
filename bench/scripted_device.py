"""`inferry-serve` on a device that takes a + b n for a batch of n and no CPU: everything else is the real server.

    python scripted_device.py COUNTS A_MS B_MS [inferry-serve's flags]

The pixels of a request begin with the time at which its answer becomes useless (int64, nanoseconds of the monotonic
clock; 0: never). Batches, rows, and rows whose time had passed when their batch began are counted in COUNTS.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto.datatypes import Arrays
from inferry_server import __main__ as server
from inferry_server.runtime import instances
from inferry_server.runtime.session import OnnxSession, load_session

STAMP = np.dtype("<i8")


class ScriptedSession(OnnxSession):
    """A real session in all but the computing: there it is a device that sleeps."""

    def __init__(self, session: OnnxSession, counts: Path, *, a_s: float, b_s: float) -> None:
        vars(self).update(vars(session))
        self._output = session.signature.outputs[0]
        self._counts = np.memmap(counts, np.int64, mode="r+", shape=3)
        self._a_s, self._b_s = a_s, b_s

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        (images,) = inputs.values()
        rows = len(images)
        stamps = images.reshape(rows, -1)[:, : STAMP.itemsize].copy().view(STAMP)
        expired = int(np.count_nonzero((stamps > 0) & (stamps < time.monotonic_ns())))
        time.sleep(self._a_s + self._b_s * rows)
        self._counts += (1, rows, expired)
        scores = np.zeros((rows, *self._output.shape[1:]), self._output.datatype.dtype)
        scores[:, 0] = images.reshape(rows, -1).sum(axis=1)  # the server batches rows that it can tell apart
        return {self._output.name: scores}


def main() -> int:
    counts, a_ms, b_ms, *flags = sys.argv[1:]

    def load_scripted(path: Path, **options: Any) -> ScriptedSession:
        session = load_session(path, **options)
        return ScriptedSession(session, Path(counts), a_s=float(a_ms) / 1e3, b_s=float(b_ms) / 1e3)

    vars(instances)["load_session"] = load_scripted  # the one thing that is not real
    return server.main(flags)


if __name__ == "__main__":
    sys.exit(main())
