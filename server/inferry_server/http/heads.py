"""What a request's head must have, and what is told about one that cannot be answered at all."""

import json
import re
from collections.abc import Mapping

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from inferry_server.http.direct_calls import RawHeaders

_HEALTH = (b"/livez", b"/readyz", b"/v2/health/")
_HOST = re.compile(rb"(\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z!$%&'()*+,.;=_~-]*)(:[0-9]*)?")


def no_request(header_bytes: int) -> str:
    """What is told with 400.

    Args:
        header_bytes: that a request's headers may have.
    """
    return (
        "this is no HTTP/1.1 request that is understood here; expected a method and a path in ASCII (percent-encode "
        f"the rest), headers of {header_bytes} bytes at most (setting http_max_header_bytes), with exactly one valid "
        "Host (HTTP/1.1), one content-length or chunks, no Upgrade with a body, and no TLS or HTTP/2 where the port "
        "speaks HTTP/1.1"
    )


def has_body(headers: RawHeaders) -> bool:
    """Whether a body follows these headers; their names are in lower case."""
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


def has_its_host(headers: RawHeaders, version: str) -> bool:
    """Whether it names one host, as RFC 9112 (3.2) wants it; requests of HTTP/1.0 may name none."""
    hosts = [value for name, value in headers if name == b"host"]
    if not hosts:
        return version == "1.0"
    return len(hosts) == 1 and _HOST.fullmatch(hosts[0].strip()) is not None


def asks_for_health(url: bytes) -> bool:
    """Whether a path is one that probes ask."""
    return url.startswith(_HEALTH)


def header_lines(headers: RawHeaders) -> bytes:
    """Headers as they are sent."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def last_reply(code: int, message: str, more: Mapping[str, str] | None = None) -> bytes:
    """A whole reply with which a connection ends: JSON, as every error is told.

    Args:
        code: of the status.
        message: what was expected.
        more: headers besides those of the body.
    """
    text = json.dumps({"error": message}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(text)), "connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers | dict(more or {})).items())
    status: bytes = STATUS_LINE[code]
    return status + lines.encode() + b"\r\n" + text
