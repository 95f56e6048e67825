"""`inferry-serve` whose completion queue fails for good after so many events: FAIL_AFTER ARGUMENTS...

Everything else is real.
"""

import sys
from typing import Any

from inferry_server.__main__ import main
from inferry_server.rpc import completion_queue
from inferry_server.rpc.core_layer import CoreServer


def failing_after(events: int) -> type[CoreServer]:
    """A server of gRPC's whose queue gives so many events, and then only errors."""

    class Failing(CoreServer):
        seen = 0

        def poll(self, until: float) -> Any:
            if self.seen == events:
                raise OSError("the queue is gone")
            event = super().poll(until)
            self.seen += event.tag is not None
            return event

    return Failing


if __name__ == "__main__":
    vars(completion_queue)["CoreServer"] = failing_after(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
