"""The requests of a load test on bidirectional RPCs: their messages, and which reply is whose. No connection here.

Every request carries a number as its id, which servers echo. The rest of its bytes is serialized beforehand, so
that numbering one costs no more than copying it.
"""

from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from inferry_client.errors import InferryError, error_from_status
from inferry_client.load.answers import WrongAnswerError
from inferry_client.load.payloads import Payloads
from inferry_client.messages.streams import STREAMED
from inferry_proto.services import IMAGE_CLASSIFIER, OPEN_INFERENCE

_ID_TAG = 3 << 3 | 2  # field 3, length-delimited: the id in both services' requests
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_REQUEST_TYPES = {
    method.path: method.request_type for method in (OPEN_INFERENCE["ModelInfer"], IMAGE_CLASSIFIER["Classify"])
}


@dataclass(frozen=True)
class StreamReply:
    """One reply of a stream.

    Attributes:
        number: of the request that it belongs to; None where the server does not say.
        answer: what the unary RPC would have replied.
        refusal: the code and the words of an error; None where the request was answered.
    """

    number: str | None
    answer: Message
    refusal: tuple[str, str] | None = None


class StreamFormat:
    """How the requests of a test travel on a stream.

    Args:
        payloads: of the unary RPC.
    """

    def __init__(self, payloads: Payloads) -> None:
        self.rpc = STREAMED[payloads.unary_path]
        self.path = self.rpc.method.path
        self._payloads = payloads
        kind: Any = _REQUEST_TYPES[payloads.unary_path]
        self._parts = [_cut(kind, request) for request in payloads.requests]

    def request(self, index: int, number: str) -> bytes:
        """The bytes of the request of this index, with a number for its id."""
        head, tail = self._parts[index]
        return b"".join((head, bytes((_ID_TAG, len(number))), number.encode(), tail))

    def read(self, reply: bytes) -> StreamReply:
        """What a reply says.

        Raises:
            WrongAnswerError: the bytes are no message of this RPC.
        """
        try:
            message: Any = self.rpc.method.response_type.FromString(reply)
        except DecodeError as error:
            raise WrongAnswerError(f"wrong answer: {error}") from error
        number = self.rpc.request_id(message) or None
        answer = self.rpc.answer(message)
        if answer is not None:
            return StreamReply(number, answer)
        return StreamReply(number, message, (_code(message), message.error_message))

    def check(self, reply: StreamReply, index: int, *, address: str, timeout_s: float) -> None:
        """See that a reply answers the request of this index.

        Raises:
            InferryError: the server refused it, or answered wrongly.
        """
        if reply.refusal is None:
            self._payloads.expectation.judge(reply.answer, index)
            return
        code, said = reply.refusal
        raise error_from_status(code, said, address=address, asked=f"answer {self._payloads.name}", timeout_s=timeout_s)


def error_of_ended_stream(*, address: str, asked: str, timeout_s: float) -> InferryError:
    """The error of requests that wait on a stream which the server ends without an error."""
    return error_from_status(
        "UNAVAILABLE", "the stream ended before the reply", address=address, asked=asked, timeout_s=timeout_s
    )


def _code(reply: Any) -> str:
    """The name of the status that the request would have ended with as a call; UNKNOWN where no code came.

    ClassifyStream has a field for it. ModelStreamInfer has words only; Inferry adds the code as a parameter.
    """
    if hasattr(reply, "error_code"):
        return _CODES.get(reply.error_code, "UNKNOWN")
    return _CODES.get(reply.infer_response.parameters["error_code"].int64_param or -1, "UNKNOWN")


def _cut(kind: Any, request: bytes) -> tuple[bytes, bytes]:
    """The bytes before the id's place and those behind it: messages are serialized in the order of their fields."""
    message = kind.FromString(request)
    head: bytes = kind(model_name=message.model_name, model_version=message.model_version).SerializeToString()
    if not request.startswith(head) or message.id:
        raise ValueError("a request for a stream has an id already, or its fields are out of order")
    return head, request[len(head) :]
