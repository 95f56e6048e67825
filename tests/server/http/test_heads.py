"""Heads of requests: what is no request is told so, and what one says is taken as the RFCs have it."""

import json

import pytest
from starlette.routing import Route

from inferry_server.http.application import make_application
from inferry_server.http.limits import HttpLimits
from inferry_server.http.server import HttpOptions, HttpServer
from testkit.http_client import ask_http
from testkit.http_port import ROUTES, connect, echo, hello, read_all, running
from testkit.servers import ANY_PORT


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nxx",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: x\r\nhOST: y\r\n\r\n",
        b"GET http://x/ HTTP/1.1\r\n\r\n",
        b"GET http://me@x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: http://x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x:1x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nLong: " + b"x" * (HttpLimits().header_bytes + 1) + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_is_told_in_json_what_was_expected(sent: bytes) -> None:
    with running() as address, connect(address) as connection:
        connection.sendall(sent)
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"content-type: application/json" in head
        assert "expected a method and a path in ASCII" in json.loads(body)["error"]


@pytest.mark.parametrize(
    ("sent", "host"),
    [
        (b"GET /host HTTP/1.0\r\n\r\n", b"none"),
        (b"GET /host HTTP/1.0\r\nHost: x\r\n\r\n", b"x"),
        (b"GET /host HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", b""),
        (b"GET /host HTTP/1.1\r\nHost: [::1]:8002\r\nConnection: close\r\n\r\n", b"[::1]:8002"),
        (b"GET /host HTTP/1.1\r\nHost: a_b.svc:8002 \r\nConnection: close\r\n\r\n", b"a_b.svc:8002"),
        (b"GET http://y:1/host HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"y:1"),
    ],
)
def test_a_request_names_one_host_and_its_target_decides(sent: bytes, host: bytes) -> None:
    with running() as address, connect(address) as connection:
        connection.sendall(sent)
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
        assert (head.split(b"\r\n")[0], body.strip()) == (b"HTTP/1.1 200 OK", host)


def test_trailers_are_no_headers() -> None:
    with running() as address, connect(address) as connection:
        connection.sendall(
            b"POST /host HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"1\r\nb\r\n0\r\nHost: y\r\nContent-Encoding: gzip\r\n\r\n"
        )
        assert read_all(connection).endswith(b"\r\n\r\nx")


def test_an_upgrade_without_a_body_is_passed_over() -> None:
    with running() as address, connect(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n")
        assert read_all(connection).endswith(b"hello")


def test_paths_and_methods_that_are_not_there_are_told_what_is() -> None:
    both = [*ROUTES, Route("/twice", hello), Route("/twice", echo, methods=["POST"])]
    server = HttpServer(make_application(both), HttpOptions())
    address = server.start(ANY_PORT)
    try:
        refused = ask_http(address, "/twice", method="PUT")
        assert (refused.code, refused.headers["allow"]) == (405, "GET, HEAD, POST")
        assert refused.json["error"] == "PUT /twice: expected GET or HEAD or POST"
        assert "such as /v2/models/NAME/infer" in ask_http(address, "/nothing").json["error"]
        slash = ask_http(address, "/echo/", b"x")
        assert (slash.code, slash.json["error"]) == (
            404, "POST /echo/: expected the path without a slash at its end: /echo",
        )  # fmt: skip
    finally:
        server.close()
