"""Bodies of requests: whole, decompressed, and never more than the limit."""

import asyncio
import gzip
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from inferry_server.errors import (
    DecodingError,
    QueueFullError,
    RequestTooLargeError,
    SlowBodyError,
    UnsupportedEncodingError,
)
from inferry_server.http.bodies import BodyBudget, ClientGoneError, read_body

LIMIT = 1000


class Connection:
    """Tells of a body in pieces, then that the client has gone."""

    def __init__(self, pieces: Sequence[bytes], *, whole: bool = True) -> None:
        self.events: list[dict[str, Any]] = [
            {"type": "http.request", "body": piece, "more_body": not whole or i < len(pieces) - 1}
            for i, piece in enumerate(pieces)
        ]

    async def receive(self) -> dict[str, Any]:
        return self.events.pop(0) if self.events else {"type": "http.disconnect"}


def read(*pieces: bytes, whole: bool = True, **headers: str) -> bytes:
    return read_with({name.replace("_", "-"): value for name, value in headers.items()}.items(), *pieces, whole=whole)


def read_with(headers: Iterable[tuple[str, str]], *pieces: bytes, whole: bool = True) -> bytes:
    raw = Headers(raw=[(name.encode(), value.encode()) for name, value in headers])
    return asyncio.run(
        read_body(raw, Connection(pieces or (b"",), whole=whole).receive, BodyBudget(limit=LIMIT, most=4 * LIMIT))
    )


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=9))
def test_a_body_is_the_pieces_that_came(pieces: list[bytes]) -> None:
    assert read(*pieces) == b"".join(pieces)


@given(st.binary(max_size=LIMIT), st.sampled_from(["gzip", "deflate", "GZIP", "x-gzip"]))
def test_compressed_bodies_are_decompressed(body: bytes, encoding: str) -> None:
    compress = zlib.compress if encoding == "deflate" else gzip.compress
    assert read(compress(body), content_encoding=encoding) == body


def test_a_body_larger_than_the_limit_is_refused_however_it_comes() -> None:
    assert len(read(bytes(LIMIT))) == LIMIT
    with pytest.raises(RequestTooLargeError, match="1001 bytes are announced, and max_message_bytes is 1000"):
        read(content_length="1001")
    connection = Connection([bytes(600)] * 3)
    with pytest.raises(RequestTooLargeError, match="more came"):
        asyncio.run(read_body(Headers(), connection.receive, BodyBudget(limit=LIMIT, most=4 * LIMIT)))
    assert len(connection.events) == 1  # the rest is not even read
    for encoding, compress in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        with pytest.raises(RequestTooLargeError, match=f"the {encoding} body is larger"):
            read(compress(bytes(1 << 20))[:LIMIT], content_encoding=encoding)


@pytest.mark.parametrize(
    ("body", "encoding", "message"),
    [
        (b"plain", "gzip", "the body is not gzip"),
        (gzip.compress(b"x" * 99, mtime=0)[:-9], "gzip", "the gzip body is cut off after 99 decompressed bytes"),
        (b"", "gzip", "cut off after 0"),
        (zlib.compress(b"x") + b"more", "deflate", "4 bytes follow the end of the deflate body"),
    ],
)
def test_bytes_that_are_not_what_they_are_said_to_be_are_undecodable(body: bytes, encoding: str, message: str) -> None:
    with pytest.raises(DecodingError, match=message):
        read(body, content_encoding=encoding)


@pytest.mark.parametrize("lines", [["br"], ["gzip, br"], ["gzip", "gzip"], ["gzip;q=1"], ["*"], ["Zstd", "identity"]])
def test_an_unknown_compression_is_named_and_the_body_is_not_read(lines: list[str]) -> None:
    connection = Connection([b"x"])
    headers = Headers(raw=[(b"content-encoding", line.encode()) for line in lines])
    told = ", ".join(lines).lower().removesuffix(", identity")
    with pytest.raises(UnsupportedEncodingError) as caught:
        asyncio.run(read_body(headers, connection.receive, BodyBudget(limit=LIMIT, most=LIMIT)))
    assert str(caught.value).startswith(f"content-encoding {told!r} is not known here; expected one of gzip, deflate")
    assert len(connection.events) == 1


@pytest.mark.parametrize("lines", [[], [""], ["identity"], ["gzip"], ["identity, gzip"], ["identity", " GZIP ,"]])
def test_content_encoding_is_one_list_however_many_lines_it_has(lines: list[str]) -> None:
    sent = gzip.compress(b"body") if "gzip" in ",".join(lines).lower() else b"body"
    assert read_with([("content-encoding", line) for line in lines], sent) == b"body"


def test_a_client_that_goes_before_its_body_is_whole_is_told_nothing() -> None:
    with pytest.raises(ClientGoneError):
        read(b"half", whole=False)


def test_bodies_have_a_bound_together_and_give_their_room_back() -> None:
    budget = BodyBudget(limit=LIMIT, most=1500)

    async def two_at_a_time() -> list[Any]:
        slow = Connection([bytes(800), bytes(100)])
        goes_on = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if len(slow.events) == 1:
                await goes_on.wait()
            return await slow.receive()

        first = asyncio.ensure_future(read_body(Headers(), receive, budget))
        await asyncio.sleep(0)
        outcomes: list[Any] = []
        try:
            await read_body(Headers(), Connection([bytes(800)]).receive, budget)
        except QueueFullError as error:
            outcomes.append(str(error))
        goes_on.set()
        outcomes.append(len(await first))
        outcomes.append(len(await read_body(Headers(), Connection([bytes(LIMIT)]).receive, budget)))
        return outcomes

    full = "the queue is full: with this request it would hold 1600 body bytes, the limit is 1500"
    assert asyncio.run(two_at_a_time()) == [full, 900, LIMIT]


class Trickle(Connection):
    """Tells of one piece of a body, and then nothing."""

    def __init__(self, size: int) -> None:
        super().__init__([bytes(size)], whole=False)
        self.silent = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if not self.events:
            await self.silent.wait()
        return await super().receive()


def outcomes_of(sizes: Sequence[int], waits: Sequence[float], most: int) -> list[Any]:
    """What becomes of bodies that begin so many seconds after one another and stop after one piece; the last is whole.

    The others are told that their clients have gone once that is settled.
    """
    now = [0.0]
    budget = BodyBudget(limit=most, most=most, clock=lambda: now[0])

    async def play() -> list[Any]:
        trickles = [Trickle(size) for size in sizes[:-1]]
        reading = []
        for trickle, wait in zip(trickles, waits, strict=True):
            reading.append(asyncio.ensure_future(read_body(Headers(), trickle.receive, budget)))
            await asyncio.sleep(0)
            now[0] += wait
        last = asyncio.ensure_future(read_body(Headers(), Connection([bytes(sizes[-1])]).receive, budget))
        await asyncio.wait([last])
        await asyncio.sleep(0)
        for trickle in trickles:
            trickle.silent.set()
        return await asyncio.gather(*reading, last, return_exceptions=True)

    return [len(one) if isinstance(one, bytes) else type(one) for one in asyncio.run(play())]


def test_a_body_that_comes_slowly_gives_its_room_to_one_that_does_not() -> None:
    assert outcomes_of([900, 600], [60.0], 1000) == [SlowBodyError, 600]


def test_of_slow_bodies_the_one_that_held_most_for_longest_gives_its_room() -> None:
    assert outcomes_of([50, 600, 300, 300], [50.0, 30.0, 10.0], 1000) == [
        ClientGoneError,
        SlowBodyError,
        ClientGoneError,
        300,
    ]
    assert outcomes_of([500, 400, 1000], [20.0, 20.0], 1000) == [SlowBodyError, SlowBodyError, 1000]


def test_where_all_bodies_come_fast_the_last_one_is_refused() -> None:
    assert outcomes_of([900, 600], [0.5], 1000) == [ClientGoneError, QueueFullError]


def test_a_given_up_body_is_told_why_and_takes_nothing() -> None:
    now = [0.0]
    budget = BodyBudget(limit=1000, most=1000, clock=lambda: now[0])

    async def play() -> str:
        slow = asyncio.ensure_future(read_body(Headers(), Trickle(1000).receive, budget))
        await asyncio.sleep(0)
        now[0] = 10.0
        for _ in range(3):
            assert len(await read_body(Headers(), Connection([bytes(1000)]).receive, budget)) == 1000
        try:
            await slow
        except SlowBodyError as error:
            return str(error)
        return ""

    assert "may have 1000 bytes (four times setting max_message_bytes)" in asyncio.run(play())


def test_a_task_that_is_cancelled_for_another_reason_ends_as_cancelled() -> None:
    async def play() -> bool:
        budget = BodyBudget(limit=10, most=10)
        reading = asyncio.ensure_future(read_body(Headers(), Trickle(5).receive, budget))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        return reading.cancelled()

    assert asyncio.run(play())
