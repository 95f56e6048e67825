"""The requests on one bidirectional RPC, and which reply is whose. Decides only: no thread, no connection.

Every request carries a number as its id, which servers echo; a reply is given to the request of its
number, so that a server which answers out of order gives nobody another's answer. A request that the
server refused, or did not answer before the stream ended, is *left*: its caller makes it once more as
a call of its own, which has retries, other servers, parts and errors as any call has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from inferry_client.errors import ReplyError, error_from_reply
from inferry_client.messages.call import Call
from inferry_client.messages.streams import StreamedRpc


@dataclass(eq=False, slots=True)
class Streamed:
    """One request of a stream.

    Attributes:
        call: what is asked.
        deadline: until when it waits, on the session's clock.
        future: of its result.
        request_id: as its caller gave it.
        alone: whether it became a call of its own, which keeps its time itself.
    """

    call: Call[Any]
    deadline: float
    future: Any
    request_id: str
    alone: bool = False


class Exchange:
    """The unanswered requests of one stream. Its owner holds a lock around every method.

    Args:
        rpc: of the stream.
        address: of its server, for messages.
        answered: told of every answer.
    """

    def __init__(self, rpc: StreamedRpc, *, address: str, answered: Callable[[], object]) -> None:
        self._rpc = rpc
        self._address = address
        self._answered = answered
        self._waiting: dict[str, Streamed] = {}
        self._sent = 0

    def send(self, streamed: Streamed) -> Message:
        """The message of a request, which is to be sent next."""
        request: Any = streamed.call.request
        self._sent += 1
        request.id = str(self._sent)
        self._waiting[request.id] = streamed
        return streamed.call.request

    def settle(self, reply: Message) -> Streamed | None:
        """Give a reply to its request; one that the server refused is left.

        Raises:
            ReplyError: the reply belongs to no request.
        """
        number = self._rpc.request_id(reply) or next(iter(self._waiting), "")
        streamed = self._waiting.pop(number, None)  # guard: client-stream-whose
        if streamed is None:
            raise error_from_reply(
                f"it is for the request {number!r}, which does not wait",
                address=self._address,
                asked="answer requests of a stream",
            )
        answer: Any = self._rpc.answer(reply)
        if answer is None:
            return _leave(streamed)
        self._answered()
        answer.id = streamed.request_id
        if not streamed.future.done():
            self._give(streamed, answer)
        return None

    def end(self) -> list[Streamed]:
        """What is left, in order; the stream takes no more."""
        left = [_leave(streamed) for streamed in self._waiting.values()]
        self._waiting.clear()
        return left

    def _give(self, streamed: Streamed, answer: Message) -> None:
        try:
            result = streamed.call.read(answer)
        except ValueError as error:
            wrong: ReplyError = error_from_reply(str(error), address=self._address, asked=streamed.call.asked)
            streamed.future.set_exception(wrong)
        else:
            streamed.future.set_result(result)


def _leave(streamed: Streamed) -> Streamed:
    request: Any = streamed.call.request
    request.id = streamed.request_id
    streamed.alone = True
    return streamed
