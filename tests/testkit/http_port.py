"""An HTTP port with a few routes of its own, and raw connections to it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferry_server.addresses import Address
from inferry_server.http.application import make_application
from inferry_server.http.server import HttpOptions, HttpServer
from testkit.servers import ANY_PORT

SOON_S = 20.0
LARGE = 64 << 20


async def hello(_request: Request) -> Response:
    return Response(b"hello")


async def large(_request: Request) -> Response:
    return Response(bytes(LARGE))


async def echo(request: Request) -> Response:
    return Response(await request.body())


async def fail(_request: Request) -> Response:
    raise KeyError("secret")


async def host(request: Request) -> Response:
    """What the headers say, once all of the request has come."""
    await request.body()
    return Response(",".join(request.headers.getlist("host")) if "host" in request.headers else "none")


ROUTES = [
    Route("/", hello),
    Route("/host", host, methods=["GET", "POST"]),
    Route("/large", large),
    Route("/echo", echo, methods=["POST"]),
    Route("/fail", fail),
]


@contextmanager
def running(**options: Any) -> Iterator[Address]:
    server = HttpServer(make_application(ROUTES), HttpOptions(**options))
    address = server.start(ANY_PORT)
    try:
        yield address
    finally:
        server.close()


def connect(address: Address) -> socket.socket:
    connection = socket.create_connection((address.host, address.port), timeout=SOON_S)
    connection.settimeout(SOON_S)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server ends the connection, in whatever way."""
    came = b""
    try:
        while piece := connection.recv(1 << 16):
            came += piece
    except ConnectionError:
        pass
    return came
