"""Infer requests that go without ASGI: the same replies as with it, in order, and what is unusual goes the long way."""

import gzip
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from starlette.applications import Starlette

from inferry_server.app import Server
from inferry_server.http import direct
from inferry_server.http.infer_request import HEADER_LENGTH
from testkit import onnx_models
from testkit.clock import ManualClock
from testkit.gated_server import gated_server
from testkit.metrics_page import total, wait_for_metrics
from testkit.played_http import played_http
from testkit.policies import save_policy, token_of
from testkit.servers import running_server

SOON_S = 20.0
INFER = "/v2/models/doubler/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("models")
    onnx_models.save_doubler(root)
    onnx_models.save_brightness(root)
    with running_server(root, response_compression="gzip") as running:
        yield running


def connect(server: Server) -> socket.socket:
    address = server.http_address
    assert address is not None
    connection = socket.create_connection((address.host, address.port), timeout=SOON_S)
    connection.settimeout(SOON_S)
    return connection


def head(path: str, *lines: str, method: str = "POST", version: str = "1.1", host: str = "localhost") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/{version}", f"Host: {host}", *lines, "", "")).encode()


def request(body: bytes, *lines: str, path: str = INFER, **named: str) -> bytes:
    return head(path, *lines, f"Content-Length: {len(body)}", **named) + body


def chunked(body: bytes, *lines: str, path: str = INFER, **named: str) -> bytes:
    """The same request, which the application answers."""
    piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return head(path, *lines, "Transfer-Encoding: chunked", **named) + piece + b"0\r\n\r\n"


def reply(stream: Any) -> tuple[str, dict[str, str], bytes]:
    """The next on a connection: its status line, its headers but for the date, its body."""
    status = stream.readline().decode().strip()
    headers: dict[str, str] = {}
    while line := stream.readline().decode().strip():
        name, _, value = line.partition(": ")
        assert name not in headers
        headers[name] = value
    headers.pop("date", None)
    body = stream.read(int(headers["content-length"]))
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)  # it has its time in it
    return status, headers, body


def asked(server: Server, *sent: bytes) -> list[tuple[str, dict[str, str], bytes]]:
    """The replies to requests, one after another on one connection."""
    found = []
    with connect(server) as connection, connection.makefile("rb") as stream:
        for one in sent:
            connection.sendall(one)
            found.append(reply(stream))
    return found


def as_json(*, rows: int = 1, data: Any = None, **more: Any) -> bytes:
    values = [1.5, -2, 3] * rows if data is None else data
    inputs = [{"name": "x", "shape": [rows, 3], "datatype": "FP32", "data": values}]
    return json.dumps({"inputs": inputs, **more}).encode()


def as_bytes(size: int = 12, behind: int = 12, **more: Any) -> tuple[bytes, str]:
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": size}}
    text = json.dumps({"inputs": [tensor], **more}).encode()
    return text + bytes(range(behind)), f"{HEADER_LENGTH}: {len(text)}"


KINDS: dict[str, tuple[bytes, tuple[str, ...], str]] = {
    "JSON": (as_json(), (), INFER),
    "with an id": (as_json(id='"é'), (), INFER),
    "rows": (as_json(rows=4), ("Content-Type: application/json", "Accept-Encoding: identity"), INFER),
    "bytes": (as_bytes()[0], (as_bytes()[1],), INFER),
    "bytes both ways": (
        as_bytes(parameters={"binary_data_output": True})[0],
        (as_bytes(parameters={"binary_data_output": True})[1],),
        INFER,
    ),
    "compressed": (as_json(rows=8), ("Accept-Encoding: gzip",), INFER),
    "a version": (as_json(), (), "/v2/models/doubler/versions/1/infer"),
    "no such version": (as_json(), (), "/v2/models/doubler/versions/9/infer"),
    "no such model": (as_json(), (), "/v2/models/nothing/infer"),
    "no JSON": (b"[", (), INFER),
    "no body": (b"", (), INFER),
    "no length": (as_json(), (f"{HEADER_LENGTH}: x",), INFER),
    "too few bytes": (as_bytes(behind=11)[0], (as_bytes()[1],), INFER),
    "too many bytes": (as_bytes(behind=13)[0], (as_bytes()[1],), INFER),
    "another type": (as_json(data=["a", "b", "c"]), (), INFER),
    "a parameter": (as_json(parameters={"timeout": -1}), (), INFER),
    "a closing connection": (as_json(), ("Connection: close",), INFER),
    "many headers": (as_json(), tuple(f"X-{i}: {'y' * 100}" for i in range(60)), INFER),
    "a query": (as_json(), (), f"{INFER}?a=b"),
    "a slash": (as_json(), (), f"{INFER}/"),
    "percent": (as_json(), (), "/v2/models/double%72/infer"),
    "another encoding": (as_json(), ("Content-Encoding: br",), INFER),
    "another site": (as_json(), ("Origin: http://example.org",), INFER),
}


@pytest.mark.parametrize("kind", KINDS)
def test_replies_are_those_of_the_application(server: Server, kind: str) -> None:
    body, lines, path = KINDS[kind]
    for _ in range(2):  # the second time by what the first left
        (given,) = asked(server, request(body, *lines, path=path))
        (expected,) = asked(server, chunked(body, *lines, path=path))
        assert given == expected


@pytest.mark.parametrize("first", ["JSON", "bytes", "no JSON", "another site", "compressed"])
def test_what_a_connection_remembers_changes_no_reply(server: Server, first: str) -> None:
    sent = [first, *(kind for kind in KINDS if kind != "a closing connection"), first]
    requests = [request(body, *lines, path=path) for body, lines, path in map(KINDS.__getitem__, sent)]
    alone = [asked(server, one)[0] for one in requests]
    assert asked(server, *requests) == alone


def test_no_name_or_site_is_let_in_by_a_request_before_it(server: Server) -> None:
    good = request(as_json())
    others = [
        (request(as_json(), host="example.org"), "421"),
        (request(as_json(), "Origin: http://example.org"), "403"),
        (request(as_json(), method="PUT"), "405"),
        (request(as_json(), "Content-Encoding: br"), "415"),
        (request(as_json(), "Host: localhost"), "400"),
    ]
    for other, code in others:
        replies = asked(server, good, good, other)
        assert [status.split()[1] for status, *_ in replies] == ["200", "200", code]


def test_what_is_like_most_takes_the_direct_way(server: Server) -> None:
    with mock.patch.object(Starlette, "__call__", side_effect=AssertionError):
        for kind in ("JSON", "with an id", "bytes", "bytes both ways", "compressed", "a version", "no JSON"):
            body, lines, path = KINDS[kind]
            ((status, *_),) = asked(server, request(body, *lines, path=path))
            assert status.split()[1] in ("200", "400")


def test_a_long_body_goes_the_long_way_however_it_comes(server: Server) -> None:
    body = as_json(rows=2)
    body += b" " * (70_000 - len(body))
    application = mock.Mock(wraps=Starlette.__call__)
    with mock.patch.object(Starlette, "__call__", lambda *given: application(*given)):
        for sent in (request(body), request(body, "Connection: close")):
            with connect(server) as connection, connection.makefile("rb") as stream:
                connection.sendall(sent[: len(sent) // 2])
                connection.sendall(sent[len(sent) // 2 :])
                assert reply(stream)[0].startswith("HTTP/1.1 200")
    assert application.call_count == 2


def test_a_body_may_come_in_pieces(server: Server) -> None:
    sent = request(as_json(rows=3))
    with connect(server) as connection, connection.makefile("rb") as stream:
        for at in range(0, len(sent), 50):
            connection.sendall(sent[at : at + 50])
        status, _, body = reply(stream)
    assert (status, json.loads(body)["outputs"][0]["shape"]) == ("HTTP/1.1 200 OK", [3, 3])


def test_requests_that_come_together_are_answered_in_their_order(server: Server) -> None:
    sent = [request(as_json(id=str(number))) for number in range(20)]
    sent[7] = chunked(as_json(id="7"))
    sent[11] = request(b"[")
    with connect(server) as connection, connection.makefile("rb") as stream:
        connection.sendall(b"".join(sent))
        replies = [reply(stream) for _ in sent]
    ids = [json.loads(body).get("id") for *_, body in replies]
    assert ids == [str(number) if number != 11 else None for number in range(20)]


def test_a_client_that_reads_no_replies_fills_no_memory(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as server, connect(server) as connection:
        connection.settimeout(1.0)
        sent = request(as_json(rows=30, id="x" * 30_000))
        taken = 0
        with suppress(TimeoutError):
            while taken < 64 << 20:
                taken += connection.send(sent)
        assert taken < 64 << 20


def test_clients_that_go_take_their_requests_along(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with gated_server(tmp_path) as gated:
        gated.gate.close()
        held = connect(gated.server)
        held.sendall(request(as_json()))
        gated.gate.wait_for_runs(1)
        gone = [connect(gated.server) for _ in range(3)]
        for connection in gone:
            connection.sendall(request(as_json(rows=2)))
        gated.wait_for_queued_rows("doubler", 6)
        for connection in gone:
            connection.close()
        gated.wait_for_queued_rows("doubler", 0)
        gated.gate.open()
        with held, held.makefile("rb") as stream:
            assert reply(stream)[0] == "HTTP/1.1 200 OK"
        assert len(gated.gate.runs) == 1


def test_callers_without_a_role_are_refused_and_counted_once(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    save_policy(tmp_path / "policy.toml", batch=("infer",))
    with running_server(tmp_path, access_policy=tmp_path / "policy.toml") as server:
        allowed = request(as_json(), f"Authorization: Bearer {token_of('batch')}")
        replies = asked(server, request(as_json()), allowed, request(as_json()))
        (expected,) = asked(server, chunked(as_json()))
    assert [status.split()[1] for status, *_ in replies] == ["401", "200", "401"]
    assert replies[0] == replies[2] == expected


def test_callers_without_a_role_are_refused_before_their_body_comes(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    save_policy(tmp_path / "policy.toml", batch=("infer",))
    with running_server(tmp_path, access_policy=tmp_path / "policy.toml") as server:
        whole = request(as_json())
        head = whole[: whole.index(b"\r\n\r\n") + 4]
        assert server.http_address is not None
        with socket.create_connection(("127.0.0.1", server.http_address.port), timeout=20) as connection:
            connection.sendall(head)
            assert connection.recv(12) == b"HTTP/1.1 401"


def test_a_head_that_comes_again_is_parsed_no_more_unless_the_client_reads_no_replies(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    sent = request(as_json())
    with running_server(tmp_path) as server, played_http(server, 1) as played:
        played.play(sent, 2)  # the second has come where one had come before
        (connection,) = played.connections
        with mock.patch.object(connection, "_begin_direct", return_value=True) as parsed:
            played.play(sent, 2)
            played.play(request(as_json(rows=4)), 1)
            assert parsed.call_count == 0
            connection.pause_writing()
            connection.data_received(sent)
            assert parsed.call_count == 1


def test_heads_that_come_again_may_come_in_pieces_or_together(server: Server) -> None:
    sent = [request(as_json(id=str(number), rows=1 + number % 2)) for number in range(16)]
    three = b"".join(sent[6:9])
    pieces = [(one, 1) for one in sent[:3]]  # with how many replies come then
    pieces += [(sent[3][:70], 0), (sent[3][70:], 1), (sent[4] + sent[5], 2), (three[:-9], 2), (three[-9:], 1)]
    pieces += [(b"\r\n" + sent[9], 1), *((one, 1) for one in sent[10:])]
    ids = []
    with connect(server) as connection, connection.makefile("rb") as stream:
        for piece, replies in pieces:
            connection.sendall(piece)
            ids += [json.loads(reply(stream)[2])["id"] for _ in range(replies)]
    assert ids == [str(number) for number in range(16)]


def test_what_a_request_waits_for_others_of_its_round_counts_as_waiting(server: Server) -> None:
    waited: list[float] = []
    clock = ManualClock()
    with played_http(server, 1) as played, mock.patch.object(direct, "time", SimpleNamespace(monotonic=clock)):
        (connection,) = played.connections
        connection.loop = mock.Mock(time=clock)
        with mock.patch.object(played.direct, "_router", wraps=played.direct._router) as router:
            router.handle = lambda call, _message: waited.append(call.waited_s)
            clock.advance(5.0)
            connection.data_received(request(as_json()))
            clock.advance(0.25)
            connection.loop.call_soon.call_args.args[0]()
    assert waited == [0.25]


def test_a_connection_that_is_idle_after_a_reply_is_closed_and_then_cut_off(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as server, played_http(server, 1) as played:
        played.play(request(as_json()), 1)
        (connection,) = played.connections
        assert connection.deadline is not None
        transport = connection.transport = mock.Mock(**{"is_closing.return_value": False})
        connection.expire(connection.deadline - 1)
        assert transport.close.call_count == transport.abort.call_count == 0
        connection.expire(connection.deadline)
        assert (transport.close.call_count, transport.abort.call_count) == (1, 0)
        transport.is_closing.return_value = True
        connection.expire(connection.deadline + 1)
        assert (transport.close.call_count, transport.abort.call_count) == (1, 1)


def test_every_request_is_counted_once_by_its_outcome(tmp_path: Path) -> None:
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as server:
        asked(server, *[request(as_json()) for _ in range(5)], request(b"["))
        with connect(server) as connection:  # it ends before its body has come
            connection.sendall(head(INFER, "Content-Length: 10") + b"12345")
        names = ("inferry_requests_received_total", "inferry_requests_outcome_total")
        metrics = wait_for_metrics(server, lambda found: all(total(found, name) == 7 for name in names), "the ends")
    ended = {code: total_of(metrics, code) for code in ("OK", "INVALID_ARGUMENT", "CANCELLED")}
    assert ended == {"OK": 5, "INVALID_ARGUMENT": 1, "CANCELLED": 1}


def total_of(metrics: dict[str, float], code: str) -> float:
    named = f'inferry_requests_outcome_total{{code="{code}"'
    return sum(value for name, value in metrics.items() if name.startswith(named))
