"""HTTP requests as they are written, one connection each."""

import http.client
import json
from dataclasses import dataclass
from typing import Any

from inferry_server.addresses import Address
from inferry_server.app import Server


@dataclass(frozen=True)
class HttpAnswer:
    """What came back; names of headers in lower case."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask_http(
    server: Server | Address, path: str, body: bytes | None = None, *, method: str | None = None, **headers: str
) -> HttpAnswer:
    """GET, or POST where there is a body; `content_type="x"` is the header `content-type`."""
    address = server if isinstance(server, Address) else server.http_address
    assert address is not None
    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    try:
        connection.request(
            method or ("GET" if body is None else "POST"), path, body,
            {name.replace("_", "-"): value for name, value in headers.items()},
        )  # fmt: skip
        answer = connection.getresponse()
        return HttpAnswer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()
