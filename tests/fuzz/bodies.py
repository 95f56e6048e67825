"""Bodies of `POST /v2/models/{model}/infer`: a right answer, or a refusal in 4xx that says why. Never 5xx.

A case is a line and a body: the line names the model and `Inference-Header-Content-Length`, or `-` for none.
"""

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuzz.json_values import with_other_value
from fuzz.mutation import TOKENS, corpus, mutated, rng_of
from fuzz.target import Check, Target, expect
from inferry_proto.datatypes import DATATYPES
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_server.http.infer_request import HEADER_LENGTH, read_infer_request
from inferry_server.wire.elements import bytes_to_elements, element_count
from testkit import onnx_models
from testkit.servers import running_server

_TIMEOUT_S = 60  # for one answer


def _mutate(seed: int) -> bytes:
    rng = rng_of("bodies", seed)
    line, _, body = rng.choice(corpus("bodies")).partition(b"\n")
    model, stated = line.split()
    end = len(body) if stated == b"-" else int(stated)
    text, binary = body[:end], body[end:]
    if rng.random() < 0.6:
        text = json.dumps(with_other_value(json.loads(text), rng)).encode()
    if rng.random() < 0.5:
        text = mutated(text, rng, tokens=TOKENS, most=2)
    if stated != b"-":
        stated = rng.choice((b"%d" % len(text),) * 6 + (b"%d" % (len(text) + 1), b"0", b"-1", b"9" * 30))
        binary = mutated(binary, rng, most=1)
    return b" ".join((model, stated)) + b"\n" + text + binary


@contextmanager
def _opened() -> Iterator[Check]:
    with TemporaryDirectory() as folder:
        onnx_models.save_doubler(Path(folder))
        onnx_models.save_text_echo(Path(folder))
        with running_server(Path(folder)) as server:
            address = server.http_address
            assert address is not None
            connection = http.client.HTTPConnection(address.host, address.port, timeout=_TIMEOUT_S)
            try:
                yield lambda case: check_body(connection, case)
            finally:
                connection.close()


def check_body(connection: http.client.HTTPConnection, case: bytes) -> bool:
    """Ask, and look at the answer."""
    line, _, body = case.partition(b"\n")
    model, stated = line.decode().split()
    headers = {} if stated == "-" else {HEADER_LENGTH: stated}
    connection.request("POST", f"/v2/models/{model}/infer", body, headers)
    answer = connection.getresponse()
    code, described, content = answer.status, dict(answer.getheaders()), answer.read()
    expect(code == 200 or 400 <= code < 500, f"status {code}: {content[:300]!r}")
    if code != 200:
        refusal = json.loads(content)
        expect(
            isinstance(refusal.get("error"), str) and refusal["error"] != "", f"{code} without a reason: {content!r}"
        )
        return False
    given, wanted = _answered(content, described), _computed(model, body, headers)
    expect(given.shape == wanted.shape, f"the answer has shape {given.shape}; expected {wanted.shape}")
    same = np.array_equal(given, wanted, equal_nan=not wanted.dtype.hasobject)
    expect(same, f"the answer is {given}; expected {wanted}")
    return True


def _answered(content: bytes, described: dict[str, str]) -> NDArray[Any]:
    """The one output, out of the JSON or from behind it."""
    stated = {name.lower(): value for name, value in described.items()}.get(HEADER_LENGTH)
    text = content if stated is None else content[: int(stated)]
    (output,) = json.loads(text)["outputs"]
    if "data" in output:
        data = [value.encode() if isinstance(value, str) else value for value in output["data"]]
        return _array(data, output["datatype"], output["shape"])
    raw = content[len(text) :]
    expect(output["parameters"]["binary_data_size"] == len(raw), f"{len(raw)} bytes behind {output}")
    return _from_raw(raw, output["datatype"], output["shape"])


def _computed(model: str, body: bytes, headers: Mapping[str, str]) -> NDArray[Any]:
    """What the model gives for a body that it takes."""
    message, _ = read_infer_request(body, headers, model=model, version="")
    request = ModelInferRequest.FromString(message)
    (tensor,) = request.inputs
    given = _from_raw(request.raw_input_contents[0], tensor.datatype, tensor.shape)
    with np.errstate(over="ignore"):  # infinite, as the model has it
        return given + given if model == "doubler" else given


def _from_raw(raw: bytes, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    if datatype == "BYTES":
        return bytes_to_elements(raw, element_count(shape)).reshape(shape)
    return np.frombuffer(raw, DATATYPES[datatype].dtype).reshape(shape)


def _array(data: Sequence[Any], datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    array = np.empty(len(data), DATATYPES[datatype].dtype)
    array[:] = data
    return array.reshape(shape)


BODIES = Target("bodies", _mutate, _opened)
