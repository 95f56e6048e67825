"""`inferry-serve` whose models take as long as they are told, and next to no CPU; everything else is the real server.

    python -m bench.sleeping_server A_MS B_MS K [inferry-serve's flags]

A batch of n rows takes A + B n milliseconds, and one of an int8 variant K times less.
"""

import sys
import time
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from inferry_proto.datatypes import Arrays
from inferry_server import __main__ as server
from inferry_server.runtime import instances
from inferry_server.runtime.session import OnnxSession, load_session


class SleepingSession(OnnxSession):
    """A real session that sleeps for the rest of the time that its batch is to take."""

    def __init__(self, session: OnnxSession, a_s: float, b_s: float) -> None:
        vars(self).update(vars(session))
        self._a_s, self._b_s = a_s, b_s

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        began = time.monotonic()
        outputs = super().run(inputs)
        ends = began + self._a_s + self._b_s * len(next(iter(inputs.values())))
        time.sleep(max(0.0, ends - time.monotonic()))
        return outputs


def main() -> int:
    a_ms, b_ms, times, *flags = sys.argv[1:]

    def load_sleeping(path: Path, **options: Any) -> SleepingSession:
        seconds = 1e-3 / (float(times) if "int8" in str(path) else 1.0)
        return SleepingSession(load_session(path, **options), float(a_ms) * seconds, float(b_ms) * seconds)

    vars(instances)["load_session"] = load_sleeping  # the one thing that is not real
    return server.main(flags)


if __name__ == "__main__":
    sys.exit(main())
