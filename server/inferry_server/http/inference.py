"""Infer and classify over HTTP."""

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferry_proto import classifier_pb2
from inferry_proto.services import IMAGE_CLASSIFIER, OPEN_INFERENCE
from inferry_proto.variants import PARAMETER
from inferry_server.errors import DecodingError, InvalidRequestError
from inferry_server.http.calls import Calls
from inferry_server.http.infer_plans import InferRequests
from inferry_server.http.infer_request import HEADER_LENGTH, BinaryWanted
from inferry_server.http.infer_response import reply_headers
from inferry_server.http.json_messages import to_json
from inferry_server.http.replies import Compression, json_reply, refusal
from inferry_server.http.response_plans import InferResponses
from inferry_server.rpc.statuses import OK, status_of

_INFER, _CLASSIFY = OPEN_INFERENCE["ModelInfer"].path, IMAGE_CLASSIFIER["Classify"].path
_MOST_TOP_K = (1 << 32) - 1


class InferenceRoutes:
    """Answers what models compute. For the loop's thread.

    Args:
        calls: asks the handlers.
        compression: of replies.
        requests: reads infer requests.
        responses: writes the replies to them.
    """

    def __init__(
        self,
        calls: Calls,
        compression: Compression,
        requests: InferRequests,
        responses: InferResponses,
    ) -> None:
        self._calls = calls
        self._compression = compression
        self._requests = requests
        self._responses = responses

    def routes(self) -> list[Route]:
        """Of every model, with and without a version."""
        return [
            Route(f"/v2/models/{{model}}{version}/{verb}", endpoint, methods=["POST"])
            for version in ("", "/versions/{version}")
            for verb, endpoint in (("infer", self.infer), ("classify", self.classify))
        ]

    async def infer(self, request: Request) -> Response:
        """The protocol's infer."""
        headers = request.headers
        wanted: list[BinaryWanted] = []

        def message(body: bytes) -> bytes:
            asked, binary = self._requests.read(body, headers.get(HEADER_LENGTH), **_version(request.path_params))
            wanted.append(binary)
            return asked

        status, response = await self._calls.ask(_INFER, request, message)
        if status is not OK:
            return refusal(status)
        try:
            body, json_bytes = self._responses.write(response, wanted[0])
        except InvalidRequestError as error:
            return refusal(status_of(error))
        body, compressed = self._compression.apply(body, headers)
        return Response(body, headers=reply_headers(json_bytes) | compressed)

    async def classify(self, request: Request) -> Response:
        """Labels of the picture that is the body, in whatever format the server decodes."""

        def message(body: bytes) -> bytes:
            return _classify_request(body, request.headers, request.query_params, request.path_params)

        status, response = await self._calls.ask(_CLASSIFY, request, message)
        if status is not OK:
            return refusal(status)
        return json_reply(to_json(classifier_pb2.ClassifyResponse.FromString(response)))


def _classify_request(body: bytes, headers: Headers, query: QueryParams, path: Mapping[str, Any]) -> bytes:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        raise InvalidRequestError(
            "the picture must be the body itself, as curl --data-binary @digit.png sends it, not a form"
        )
    if not body:
        raise DecodingError("the body is empty; expected a picture, as curl --data-binary @digit.png sends it")
    version = _version(path)
    request = classifier_pb2.ClassifyRequest(
        model_name=version["model"], model_version=version["version"], id=query.get("id", "")
    )
    request.images.add(encoded=body)
    request.accept_variant = query.get(PARAMETER, "")
    request.top_k = _number(query, "top_k", int, _MOST_TOP_K)
    request.min_probability = _number(query, "min_probability", float, 1)
    return request.SerializeToString()


def _number(query: QueryParams, name: str, kind: type[int] | type[float], most: int) -> Any:
    text = query.get(name, "0")
    try:
        value = kind(text)
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise InvalidRequestError(f"query parameter {name!r} is {text[:40]!r}; expected a number from 0 to {most}")
    return value


def _version(path: Mapping[str, Any]) -> dict[str, str]:
    """The model and version of a path; half characters, which no message can carry, are shown as such."""
    names = {"model": path["model"], "version": path.get("version", "")}
    return {key: name.encode(errors="replace").decode() for key, name in names.items()}
