"""Heads that come again: what is taken apart without the parser is what the parser finds."""

from dataclasses import dataclass, field
from typing import Any

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferry_server.http.direct_calls import Head
from inferry_server.http.repeated_heads import RepeatedHead, repeated_head

URL = b"/v2/models/m/infer"


@dataclass
class Message:
    """A request as the parser finds it."""

    url: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    is_whole: bool = False


class Found:
    """All requests that the parser finds."""

    def __init__(self, data: bytes) -> None:
        self.messages: list[Message] = []
        self.is_broken = False
        try:
            httptools.HttpRequestParser(self).feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.is_broken = True

    def on_message_begin(self) -> None:
        self.messages.append(Message())

    def on_url(self, url: bytes) -> None:
        self.messages[-1].url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.messages[-1].headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.messages[-1].body += body

    def on_message_complete(self) -> None:
        self.messages[-1].is_whole = True


def request(body: bytes, *lines: bytes, size: bytes | None = None, last: tuple[bytes, ...] = ()) -> bytes:
    stated = b"%d" % len(body) if size is None else size
    head = (b"POST %b HTTP/1.1" % URL, b"Host: localhost", *lines, b"Content-Length: " + stated, *last)
    return b"\r\n".join((*head, b"", b"")) + body


def learnt(data: bytes) -> RepeatedHead | None:
    """What is kept of the first request in it."""
    first = Found(data).messages[0]
    names = [name for name, _ in first.headers]
    head = Head(first.url, first.headers, names.index(b"content-length"), "m", "", None, [])
    return repeated_head(data, head, first.headers)


def without_length(message: Message) -> list[tuple[bytes, bytes]]:
    return [header for header in message.headers if header[0] != b"content-length"]


LINES = st.lists(st.sampled_from([b"a: b", b"A:  b c", b"x-content-length: 7", b"Accept: */*", b"e:"]), max_size=3)
BODIES = st.sampled_from([b"", b"a", b"ab", b"x" * 12, b"\r\n\r\n", b"7\r\n\r\n", request(b"ab"), b"1" * 1234])


@given(st.data(), LINES, LINES, BODIES)
def test_what_is_taken_apart_is_what_the_parser_finds(
    data: st.DataObject, lines: list[bytes], last: list[bytes], body: bytes
) -> None:
    first = request(body, *lines, last=tuple(last))
    repeated = learnt(first)
    assert repeated is not None
    assert repeated.body(first) == body
    other = data.draw(BODIES)
    kinds = [
        request(other, *lines, last=tuple(last)),
        request(other, *lines, last=tuple(last)) * 2,
        request(other, *lines, last=tuple(last))[: data.draw(st.integers(0, 200))],
        request(other, *lines, last=tuple(last), size=data.draw(st.sampled_from([b"2", b"007", b"+2", b"2 ", b" 2"]))),
        request(other, *data.draw(LINES), last=tuple(data.draw(LINES))),
        request(other, *lines, last=(*last, b"Transfer-Encoding: chunked")),
        b"\r\n" + request(other, *lines, last=tuple(last)),
        first.replace(b"POST", b"PUT"),
        first.replace(b"/m/", b"/n/"),
        first.replace(b"HTTP/1.1", b"HTTP/1.0"),
        first + b"\r\n",
    ]
    for sent in kinds:
        given_body = repeated.body(sent)
        if given_body is None:
            continue
        found = Found(sent)
        (message,) = found.messages
        assert (found.is_broken, message.is_whole, message.url, message.body) == (False, True, URL, given_body)
        assert without_length(message) == without_length(Found(first).messages[0])


@given(LINES, BODIES, BODIES)
@example([], b"a", b"b" * 99_999)
def test_a_request_with_the_same_head_is_taken_apart(lines: list[bytes], body: bytes, other: bytes) -> None:
    repeated = learnt(request(body, *lines))
    assert repeated is not None
    assert repeated.body(request(other, *lines)) == other


@pytest.mark.parametrize("other", [{"last": (b"a: c",)}, {"last": (b"b: b",)}, {"size": b"2" * 4}, {"size": b"0002"}])
def test_another_head_of_the_same_length_is_parsed(other: dict[str, Any]) -> None:
    repeated = learnt(request(b"x" * 1234, last=(b"a: b",)))
    assert repeated is not None
    sent = request(b"y" * 1234, **({"last": (b"a: b",)} | other))
    assert repeated.body(sent) is None


@pytest.mark.parametrize(
    "data",
    [
        request(b"ab") + request(b"ab"),
        request(b"ab") + b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" + b"ab",
        request(b"ab") + b"ab",
        request(b"ab") + b"\r\n",
        request(b"ab")[:-1],
        b"\r\n" + request(b"ab"),
        request(b"ab", size=b"000002"),
        request(b"ab").replace(b"Content-Length: 2", b"Content-Length: 2 "),
        request(b"ab").replace(b"Content-Length: 2", b"Content-Length:2"),
        request(b"ab", b"a: b  "),
    ],
)
def test_what_is_kept_of_any_other_beginning_takes_nothing_else_for_a_request(data: bytes) -> None:
    repeated = learnt(data)
    if repeated is None:
        return
    for sent in (data, request(b"abc"), data[:-2] + b"cd"):
        body = repeated.body(sent)
        if body is not None:
            (message,) = Found(sent).messages
            assert (message.is_whole, message.body) == (True, body)


def test_a_length_of_any_number_of_digits_breaks_nothing() -> None:
    repeated = learnt(request(b"ab"))
    assert repeated is not None
    for size in (b"9" * 6, b"0" * 5000 + b"2", "٢".encode(), b"", b"-2"):
        assert repeated.body(request(b"ab", size=size)) is None
