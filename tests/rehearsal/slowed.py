"""`python -m rehearsal.slowed ROW_MS [inferry-serve's arguments]`: a real server whose device takes so long for a row.

What it computes is the model's own; the time is that of a clock, so that its capacity does not depend on how busy
this machine is. A device that was late makes up for it while there is work, as one does.
"""

import sys
import time
from typing import Any

from inferry_server.__main__ import main
from inferry_server.runtime.session import OnnxSession

_LATE_S = 0.003  # a sleep may end that late; whoever comes later than that was not waiting


def slow_down(row_s: float) -> None:
    """Have every run of every session take so long for each row of its first input."""
    compute = OnnxSession.run
    free_at = 0.0

    def run(session: OnnxSession, inputs: Any) -> Any:
        nonlocal free_at
        started = time.monotonic()
        outputs = compute(session, inputs)
        begun = free_at if started - free_at < _LATE_S else started
        free_at = begun + row_s * len(next(iter(inputs.values())))
        time.sleep(max(0.0, free_at - time.monotonic()))
        return outputs

    OnnxSession.run = run  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    slow_down(float(sys.argv[1]) / 1e3)
    sys.exit(main(sys.argv[2:]))
