"""What a decoding process runs. Chunks of pictures come on a connection; what they decoded to goes back on it.

It imports what decoding needs and no more: there is one of it a core.
"""

import gc
import os
import pickle
import signal
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import numpy as np

from inferry_client.batch.decode import Decoded, DecodeSettings, decode_chunk

READY = b"ready"
"""The first message: from then on it has imported everything, and dies of pictures only."""


def serve(descriptor: int) -> None:
    """Decode until the connection ends, and end with it, whatever is being decoded.

    A thread receives, so that the parent can send the next chunk while one is decoded and sent back.
    """
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)  # a terminal and Kubernetes may tell the whole group; the parent decides
    connection: Connection[Any, Any] = Connection(descriptor)
    chunks: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, chunks), daemon=True).start()
    gc.freeze()  # modules are not looked through again and again: 2 to 6 % of the time of small pictures
    connection.send_bytes(READY)
    settings: DecodeSettings = pickle.loads(chunks.get())  # noqa: S301 - from the parent
    while True:
        contents = pickle.loads(chunks.get())  # noqa: S301 - from the parent
        try:
            send_decoded(connection, decode_chunk(contents, settings))
        except OSError:
            os._exit(1)  # the parent is gone
        except Exception as error:  # noqa: BLE001 - the parent's to handle
            connection.send_bytes(pickle.dumps(f"{type(error).__name__}: {error}"))


def send_decoded(connection: "Connection[Any, Any]", decoded: Decoded) -> None:
    """The pixels go as they are, after all that is small."""
    pixels = np.ascontiguousarray(decoded.pixels)
    about = (pixels.shape, decoded.digests, decoded.faults, decoded.read_s, decoded.decode_s)
    connection.send_bytes(pickle.dumps(about))
    if pixels.size:
        connection.send_bytes(pixels.reshape(-1).data)


def receive_decoded(connection: "Connection[Any, Any]") -> Decoded:
    """What `send_decoded` sent.

    Raises:
        EOFError: the process died; or OSError.
        RuntimeError: decoding failed in a way that is nobody's picture's fault.
    """
    about = pickle.loads(connection.recv_bytes())  # noqa: S301 - from a process that this one began
    if isinstance(about, str):
        raise RuntimeError(f"a decoding process failed: {about}")  # noqa: TRY004 - it is about no argument
    shape, digests, faults, read_s, decode_s = about
    pixels = np.empty(shape, np.uint8)
    if pixels.size:
        connection.recv_bytes_into(pixels.reshape(-1).data)
    return Decoded(pixels, digests, faults, read_s, decode_s)


def _receive(connection: "Connection[Any, Any]", chunks: "SimpleQueue[bytes]") -> None:
    while True:
        try:
            chunks.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)
