"""`python -m chaos.under_faketime`: the server under libfaketime, whose `clock_nanosleep` refuses moments.

Python sleeps until a moment of the monotonic clock; libfaketime (0.9.10) takes the jump of the wall clock from it even
where it leaves the monotonic clock alone, and answers EINVAL. No real clock does so. Here Python sleeps by `select`.
"""

import select
import sys
import time

from inferry_server.__main__ import main


def _sleep(seconds: float) -> None:
    select.select((), (), (), seconds)


if __name__ == "__main__":
    time.sleep = _sleep  # type: ignore[assignment]
    sys.exit(main(sys.argv[1:]))
