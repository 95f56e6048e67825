"""Clients that vanish, send rubbish, or take for ever."""

import contextlib
import http.client
import random
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import grpc
import numpy as np

from chaos import frames
from chaos.account import Account
from chaos.models import MODEL, draw_picture, is_right
from chaos.scene import FaultError, Scene, Setup
from chaos.traffic import INFER, outcome_of
from fuzz.mutation import mutated
from inferry_proto.open_inference_pb2 import ModelInferResponse
from testkit.rpc import infer_request

_SLOW_BYTE_S = 0.25
_READ_TIMEOUT_S = 4.0
_ELSEWHERE = "127.0.0.2"  # another address than that of the callers


def vanish(scene: Scene) -> str:
    """Thousands connect and are gone: at once, after half a request, or while it is computed."""
    connections, calls = scene.times(6000), scene.times(1000)
    request = frames.hello() + frames.call(INFER, announced=1 << 20)
    for number in range(connections):
        connection = frames.connect(scene.way.grpc_port if number % 3 else scene.way.http_port)
        with contextlib.suppress(OSError):  # the server may be done with it sooner
            if number % 3 == 1:
                connection.sendall(request)
            elif number % 3 == 0:
                connection.sendall(b"POST /v2/models/brightness/infer HTTP/1.1\r\nContent-Length: 999\r\n\r\n{")
        frames.reset(connection)
    message = infer_request(MODEL, images=draw_picture(random.Random(1))).SerializeToString()
    for _ in range(calls):
        scene.attack.send()
        with scene.way.channel() as channel:
            infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
            infer.future(message)
        scene.attack.fail("gone")
    return f"{connections} connections and {calls} calls whose clients vanish"


def send_rubbish(scene: Scene) -> str:
    """Of the requests of a caller 30 % are spoiled: those are refused, and the others are answered."""
    spoiled = Account()
    with scene.way.channel() as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
        for number in range(scene.times(10_000)):
            rng = random.Random(number)
            picture = draw_picture(rng)
            message = infer_request(MODEL, images=picture).SerializeToString()
            is_spoiled = rng.random() < 0.3
            account = spoiled if is_spoiled else scene.attack
            account.send()
            try:
                reply = infer(mutated(message, rng) if is_spoiled else message, timeout=scene.way.deadline_s)
            except grpc.RpcError as error:
                account.fail(outcome_of(error))
                continue
            output = np.frombuffer(ModelInferResponse.FromString(reply).raw_output_contents[0], np.float32)
            account.end(right=is_spoiled or is_right(picture, output))  # spoiled pixels are pixels
    pages = _send_rubbish_over_http(scene)
    unexpected = spoiled.others(frozenset(("INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED")))
    if unexpected or scene.attack.answered != scene.attack.sent or spoiled.sent != spoiled.ended():
        raise FaultError(f"of spoiled requests: {spoiled}; of the others: {scene.attack}")
    refused = ", ".join(f"{count} {outcome}" for outcome, count in spoiled.refused.most_common())
    return (
        f"{spoiled.sent} of {spoiled.sent + scene.attack.sent} requests are spoiled ({refused}, {spoiled.answered} "
        f"still valid), and {pages} HTTP requests"
    )


def _send_rubbish_over_http(scene: Scene) -> int:
    """Spoiled bytes to the HTTP port; whatever answers is no error of the server."""
    body = b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[1,4,4,1],"data":[1]}]}'
    request = b"POST /v2/models/brightness/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
    count = scene.times(1000)
    for number in range(count):
        with frames.connect(scene.way.http_port) as connection:
            connection.settimeout(0.5)  # half a request gets no answer yet
            with contextlib.suppress(OSError):
                connection.sendall(mutated(request % (len(body), body), random.Random(number), most=6))
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(1 << 12)
                if answer.startswith(b"HTTP/1.1 5"):
                    raise FaultError(f"request {number} was answered {answer!r}")
    return count


def hurried(folder: Path) -> Setup:
    """A server that waits less long for requests than usual."""
    seconds = str(_READ_TIMEOUT_S)
    return Setup(folder / "models", ("--request-read-timeout-s", seconds, "--http-read-timeout-s", seconds))


def dawdle(scene: Scene) -> str:
    """Hundreds of requests come a byte at a time, over both ports; those over HTTP from an address of their own.

    They are more than an address may have connections, and whoever shares it shares its room: a caller that has just
    connected, and has sent nothing yet, makes room like any other.
    """
    calls, pages = scene.times(300), scene.times(300)
    opened = [_begin(frames.connect(scene.way.grpc_port), frames.hello() + frames.call(INFER, announced=1 << 20))
              for _ in range(calls)]  # fmt: skip
    opened_pages = [_begin(frames.connect(scene.way.http_port, source=_ELSEWHERE), b"POST /v2/models/")
                    for _ in range(pages)]  # fmt: skip
    ends = time.monotonic() + max(_READ_TIMEOUT_S + 2, scene.times(20))
    while time.monotonic() < ends:
        for connection in opened:
            _drip(connection, frames.data(b"x"))
        for connection in opened_pages:
            _drip(connection, b"x")
        time.sleep(_SLOW_BYTE_S)
    for connection in (*opened, *opened_pages):
        connection.close()
    scene.over()
    series = scene.server.metrics()
    check_given_up(series, calls=calls, pages=pages)
    return f"{calls} gRPC calls and {pages} HTTP requests come a byte at a time; all are ended, and counted"


def check_given_up(series: Mapping[str, float], *, calls: int, pages: int) -> None:
    """What the server counted of requests that do not come whole: all of them, by the time that they took or the room.

    Raises:
        FaultError: it holds some still, or gave up others.
    """
    ended = _summed(series, "inferry_requests_outcome_total", "request_not_received")
    if ended != calls:
        raise FaultError(f"{calls} calls sent no whole request, and the server gave up {ended}")
    closed = sum(_summed(series, "inferry_http_connections_closed_total", reason) for reason in ("slow", "crowded"))
    if closed < pages:
        raise FaultError(f"{pages} HTTP requests came with no whole header, and the server closed {closed} connections")


def _summed(series: Mapping[str, float], name: str, reason: str) -> int:
    """Of a counter, all series with a reason."""
    return sum(int(value) for key, value in series.items() if key.startswith(f"{name}{{") and f'"{reason}"' in key)


def _begin(connection: socket.socket, content: bytes) -> socket.socket:
    connection.sendall(content)
    return connection


def _drip(connection: socket.socket, content: bytes) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):  # the server may have closed it
        connection.send(content)
