"""One bidirectional RPC of a user that waits for each reply before it sends the next request."""

import itertools
import queue
import threading
from typing import Any

import grpc

from inferry_client.connecting.channels import error_from_rpc, open_channel
from inferry_client.connecting.connection import BareChannel, Connection
from inferry_client.errors import InferryError, error_from_silence
from inferry_client.load.answers import WrongAnswerError
from inferry_client.load.payloads import Payloads
from inferry_client.load.streams import StreamFormat, StreamReply, error_of_ended_stream


class UserStream:
    """A stream, opened when it is first needed, and again after it broke or a reply did not come.

    One thread at a time may ask. A thread of each stream reads the replies, so that waiting for one can end.

    Args:
        channel: to the server.
        bare: what the channel was opened with.
        payloads: requests are chosen among them.
        timeout_s: of every request.
    """

    def __init__(self, channel: grpc.Channel, bare: BareChannel, payloads: Payloads, *, timeout_s: float) -> None:
        self._format = StreamFormat(payloads)
        self._method: Any = channel.stream_stream(self._format.path)
        self._bare = bare
        self._asked = f"answer {payloads.name}"
        self._timeout_s = timeout_s
        self._numbers = itertools.count(1)
        self._rpc: Any = None
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def ask(self, index: int) -> StreamReply:
        """Send the request of this index, and wait for its reply.

        Raises:
            InferryError: the stream broke, nothing came in time, or what came belongs to no request.
        """
        number = str(next(self._numbers))
        if self._rpc is None:
            self._open()
        self._outgoing.put(self._format.request(index, number))
        try:
            came = self._replies.get(timeout=self._timeout_s)
        except queue.Empty:
            self.close()  # a reply that comes later must not be taken for the next one's
            raise error_from_silence(asked=self._asked, timeout_s=self._timeout_s) from None
        if isinstance(came, Exception):
            self.close()
            raise self._explain(came) from came
        reply = self._format.read(came)
        if reply.number not in (None, number):
            self.close()
            raise WrongAnswerError(f"wrong answer: to request {reply.number!r}; expected {number!r}")
        return reply

    def check(self, reply: StreamReply, index: int) -> None:
        """See that a reply answers the request of this index.

        Raises:
            InferryError: the server refused it, or answered wrongly.
        """
        self._format.check(reply, index, address=self._bare.address, timeout_s=self._timeout_s)

    def close(self) -> None:
        """End the stream; the next request opens another."""
        if self._rpc is not None:
            self._outgoing.put(None)
            self._rpc.cancel()
            self._rpc = None

    def _open(self) -> None:
        self._outgoing, self._replies = queue.SimpleQueue(), queue.SimpleQueue()
        self._rpc = self._method(iter(self._outgoing.get, None), metadata=self._bare.metadata)
        threading.Thread(target=_read, args=(self._rpc, self._replies), daemon=True, name="load-stream").start()

    def _explain(self, error: Exception) -> InferryError:
        address, asked = self._bare.address, self._asked
        if isinstance(error, grpc.RpcError):
            return error_from_rpc(error, address=address, asked=asked, timeout_s=self._timeout_s)
        return error_of_ended_stream(address=address, asked=asked, timeout_s=self._timeout_s)


def try_stream(connection: Connection, payloads: Payloads, *, timeout_s: float) -> None:
    """Have the first request answered on a stream, before thousands are sent.

    Raises:
        InferryError: the server has no such RPC, or does not answer there.
    """
    bare = connection.bare_channel(0)
    with open_channel(bare.address, bare.settings, bare.credentials) as channel:
        stream = UserStream(channel, bare, payloads, timeout_s=timeout_s)
        try:
            stream.check(stream.ask(0), 0)
        finally:
            stream.close()


def _read(rpc: Any, replies: "queue.SimpleQueue[bytes | Exception]") -> None:
    try:
        for reply in rpc:
            replies.put(reply)
        replies.put(EOFError("the stream ended"))
    except grpc.RpcError as error:
        replies.put(error)
