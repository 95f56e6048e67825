"""The process of one front end: `python -m inferry_server.front_ends DESCRIPTORS`. The owner alone starts it.

The owner has prepared the environment that gRPC reads when it is imported.
"""

import gc
import logging
import os
import signal
import socket
import sys

from inferry_server.front_ends.arena import ArenaReader, ArenaWriter
from inferry_server.front_ends.channel import Arenas
from inferry_server.front_ends.front_end import FrontEnd

_SWITCH_INTERVAL_S = 0.001  # as in the owner


def main(end: int, *shared: int) -> int:
    """Serve until the owner says to stop, or is gone.

    Args:
        end: descriptor of the socket to the owner.
        shared: descriptors of the memory for large messages to the owner, and of that for those from it; or none.

    Returns:
        0 after a stop that the owner asked for, 1 after anything else.
    """
    for number in (signal.SIGTERM, signal.SIGINT):  # a terminal sends them to every process; the owner decides
        signal.signal(number, signal.SIG_IGN)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.freeze()
    return FrontEnd(socket.socket(fileno=end), _arenas(*shared) if shared else None).run()


def _arenas(outgoing: int, incoming: int) -> Arenas:
    arenas = Arenas(ArenaWriter(outgoing), ArenaReader(incoming))
    os.close(outgoing)
    os.close(incoming)
    return arenas


if __name__ == "__main__":
    status = main(*map(int, sys.argv[1:]))
    logging.shutdown()
    os._exit(status)  # not in order: a call may still be under way, for nobody
