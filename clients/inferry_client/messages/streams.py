"""The bidirectional RPCs: which of them carries a request, and what is in its replies."""

from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from inferry_client.messages.call import Call
from inferry_proto.services import IMAGE_CLASSIFIER, OPEN_INFERENCE, Method


@dataclass(frozen=True)
class StreamedRpc:
    """A bidirectional RPC that takes the same requests as a unary one.

    Attributes:
        method: of it.
        answer_field: of its replies: the reply of the unary RPC, also with an error, for its id.
        error_field: of its replies: true where the request was refused.
    """

    method: Method
    answer_field: str
    error_field: str

    def answer(self, reply: Any) -> Message | None:
        """The unary RPC's reply in a streamed one; None: the request was refused."""
        answer: Message | None = None if getattr(reply, self.error_field) else getattr(reply, self.answer_field)
        return answer

    def request_id(self, reply: Any) -> str:
        """The id of the request that a streamed reply belongs to; empty where the server does not say."""
        said: str = getattr(reply, self.answer_field).id
        return said


STREAMED = {
    OPEN_INFERENCE["ModelInfer"].path: StreamedRpc(
        OPEN_INFERENCE["ModelStreamInfer"], answer_field="infer_response", error_field="error_message"
    ),
    IMAGE_CLASSIFIER["Classify"].path: StreamedRpc(
        IMAGE_CLASSIFIER["ClassifyStream"], answer_field="response", error_field="error_code"
    ),
}
"""By the path of the unary RPC."""


def streamed_rpc(call: Call[Any]) -> StreamedRpc:
    """The bidirectional RPC that carries a call's request."""
    return STREAMED[call.method.path]
