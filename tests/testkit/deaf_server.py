"""`inferry-serve` whose completion queue fails for good after so many events: FAIL_AFTER ARGUMENTS...

Everything else is real.
"""

import sys
from collections.abc import Sequence
from typing import Any

from inferry_server.__main__ import main
from inferry_server.transport import completion_queue
from inferry_server.transport.core_layer import CoreServer


def failing_after(events: int) -> type[CoreServer]:
    """A server of gRPC's whose queue gives so many events, and then only errors."""

    class Failing(CoreServer):
        def __init__(self, options: Sequence[tuple[str, int | str]]) -> None:
            super().__init__(options)
            self._seen, self._poll, self.poll = 0, self.poll, self._poll_or_fail

        def _poll_or_fail(self, until: float) -> Any:
            if self._seen == events:
                raise OSError("the queue is gone")
            event = self._poll(until)
            self._seen += event.tag is not None
            return event

    return Failing


if __name__ == "__main__":
    vars(completion_queue)["CoreServer"] = failing_after(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
