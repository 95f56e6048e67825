"""Attacks on the gRPC port. Each is bounded in number and time, and says what the server did."""

import random
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence

import grpc

from bench.attacks.frames import CONTINUATION, DATA, HEADERS, PING, RST_STREAM, Peer, block, frame, headers, message
from bench.attacks.honest import INPUT, MODEL, PATH, SIDE, request
from bench.attacks.target import Target
from fuzz.mutation import mutated
from inferry_proto.open_inference_pb2 import ModelInferRequest
from testkit.callers import own_channel

MIB = 1 << 20
_WATCH = "/grpc.health.v1.Health/Watch"
BESIDE, MODELS_BESIDE = "beside", 8
"""Names of models beside the one that the good caller asks, and how many there are."""
_KINDS = 12  # of frames: ten that RFC 9113 knows, and two that it does not
_ODD_SIZES = (0, 1, 4, 5, 6, 8, 9, 100, 16_384)
_ODD_STREAMS = (0, 0, 1, 1, 2, 3, 5, (1 << 31) - 1)
_PARAMETER_BYTES = 7  # of one, with a name of three bytes and no value
_CANCELLED = b"\0\0\0\x08"
_ODD_SHAPES: tuple[tuple[int, ...], ...] = (
    (1 << 40, SIDE, SIDE, 1), (-1, SIDE, SIDE, 1), (0, SIDE, SIDE, 1), (1 << 62, 4, 1, 1), (1,), (), (1,) * 5000,
    (1 << 31, 1 << 31, 1, 1),
)  # fmt: skip


def idle_connections(target: Target) -> Counter[str]:
    """2,000 connections that say hello and nothing more, for three seconds."""
    return held([opened(target, lambda _: None) for _ in range(2000)], 3.0)


def vanish(target: Target) -> Counter[str]:
    """3,000 connections that are reset in the middle of a request."""
    seen: Counter[str] = Counter()
    for _ in range(3000):
        peer = opened(target, _announce)
        if peer is not None:
            peer.close(reset=True)
            seen["vanished"] += 1
    return seen


def rapid_reset(target: Target) -> Counter[str]:
    """100,000 calls on one connection, each taken back at once (CVE-2023-44487)."""
    peer, content = Peer(target.grpc), block(PATH)
    for first in range(1, 200_000, 400):
        streams = range(first, first + 400, 2)
        peer.send(b"".join(frame(HEADERS, 4, s, content) + frame(RST_STREAM, 0, s, _CANCELLED) for s in streams),
                  until=target.until)  # fmt: skip
    return held([peer], 1.0)


def endless_headers(target: Target) -> Counter[str]:
    """Headers of 256 MiB that never end (CONTINUATION)."""
    peer = Peer(target.grpc)
    peer.send(frame(HEADERS, 0, 1, block(PATH)))
    piece = frame(CONTINUATION, 0, 1, b"\0\x03abc\x7f\xa1\x7e" + b"x" * 16_288) * 16
    for _ in range(1024):
        if not peer.send(piece, until=target.until) or not peer.open:
            break
    return held([peer], 1.0)


def large_metadata(target: Target) -> Counter[str]:
    """200 calls with metadata of 1 MiB each, on ten connections."""
    more = {"x-large": "x" * MIB}
    peers = [Peer(target.grpc) for _ in range(10)]
    for number in range(20):
        for peer in peers:
            peer.send(headers(PATH, 1 + 2 * number, more), until=target.until)
    return held(peers, 1.0)


def pings(target: Target) -> Counter[str]:
    """200,000 PINGs on one connection."""
    peer, many = Peer(target.grpc), frame(PING, 0, 0, b"12345678") * 1000
    for _ in range(200):
        peer.send(many, until=target.until)
    return held([peer], 1.0)


def open_streams(target: Target) -> Counter[str]:
    """20,000 calls on one connection that send no message, for three seconds."""
    peer, content = Peer(target.grpc), block(PATH)
    for first in range(1, 40_000, 400):
        peer.send(b"".join(frame(HEADERS, 4, s, content) for s in range(first, first + 400, 2)), until=target.until)
    return held([peer], 3.0)


def half_sent(target: Target) -> Counter[str]:
    """16 messages of 63 MiB of which 60 MiB come, held for three seconds."""
    part = bytes(60 * MIB)

    def one(peer: Peer) -> None:
        peer.send(headers(PATH))
        peer.send_data(1, message(part, announced=63 * MIB), until=target.until)

    return held(together(target, one, 16), 3.0)


def byte_by_byte(target: Target) -> Counter[str]:
    """300 messages that come a byte at a time, for ten seconds."""
    peers = [opened(target, _announce) for _ in range(300)]
    for _ in range(40):
        for peer in peers:
            if peer is not None and peer.open:
                peer.send_data(1, b"\0", until=target.until)
        time.sleep(0.25)
    return held(peers, 0.1)


def answers_unread(target: Target) -> Counter[str]:
    """1,000 requests of 32 pictures on each of ten connections, whose answers no window takes, for five seconds."""
    asked = message(request(7, 32))

    def one(peer: Peer) -> None:
        for stream in range(1, 2000, 2):
            peer.send(headers(PATH, stream), until=target.until)
            if not peer.send_data(stream, asked, ends=True, until=target.until):
                return

    return held(together(target, one, 10, window=0), 5.0)


def gzip_bombs(target: Target) -> Counter[str]:
    """Three messages of 0.5 MiB that become 512 MiB of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(512)) + packer.flush()

    def one(peer: Peer) -> None:
        peer.send(headers(PATH, 1, {"grpc-encoding": "gzip"}))
        peer.send_data(1, message(bomb, compressed=True), ends=True, until=target.until)
        peer.look(5.0)

    return held(together(target, one, 3), 0.1)


def many_fields(target: Target) -> Counter[str]:
    """Four messages of 4 MiB with two million empty tensors each."""
    return calls(target, [b"\x2a\0" * (2 * MIB)] * 4, at_once=4)


def many_parameters(target: Target) -> Counter[str]:
    """Four messages of 4 MiB with 599,186 parameters each, every one with a name of its own."""
    names = (bytes((number >> 14, number >> 7 & 127, number & 127)) for number in range(4 * MIB // _PARAMETER_BYTES))
    return calls(target, [b"".join(b"\x22\x05\x0a\x03" + name for name in names)] * 4, at_once=4)


def odd_shapes(target: Target) -> Counter[str]:
    """800 requests whose shapes say more than their bytes, less, or nothing that can be."""
    asked = []
    for number in range(800):
        one = ModelInferRequest(model_name=MODEL)
        one.inputs.add(name=INPUT, datatype="UINT8", shape=_ODD_SHAPES[number % len(_ODD_SHAPES)])
        one.raw_input_contents.append(bytes(SIDE * SIDE))
        asked.append(one.SerializeToString())
    return calls(target, asked)


def spoiled(target: Target) -> Counter[str]:
    """3,000 requests with seeded faults in their bytes."""
    return calls(target, [mutated(request(number % 256), random.Random(number)) for number in range(3000)])


def long_names(target: Target) -> Counter[str]:
    """16 calls of Watch for names of 30 MiB."""
    name = b"\x0a" + b"\x80\x80\x80\x0f" + b"x" * (30 * MIB)
    seen: Counter[str] = Counter()
    calls = []
    channels = [own_channel(f"127.0.0.1:{target.grpc}") for _ in range(4)]
    for number in range(16):
        watch: grpc.UnaryStreamMultiCallable[bytes, bytes] = channels[number % 4].unary_stream(_WATCH)
        calls.append(watch(name, timeout=8))
    for call in calls:
        try:
            for _ in call:
                seen["watched"] += 1
        except grpc.RpcError as error:
            seen[error.code().name] += 1
    for channel in channels:
        channel.close()
    return seen


def overload(target: Target) -> Counter[str]:
    """20,000 requests of 32 pictures at once, without a deadline of their own; ended after 20 s."""
    return calls(target, [request(5, 32)] * 20_000, at_once=20_000, within_s=20.0)


def many_models(target: Target) -> Counter[str]:
    """16,000 requests of 32 pictures, for eight models in turn; ended after 20 s; Inferry has 64 MiB wait (1 GiB)."""
    asked = [request(5, 32, model=f"{BESIDE}{number}") for number in range(MODELS_BESIDE)]
    return calls(target, asked * 2000, at_once=16_000, within_s=20.0)


def random_frames(target: Target) -> Counter[str]:
    """20,000 frames of random kinds, flags, streams and bytes, over new connections as the server ends them."""
    rng, seen = random.Random(1), Counter[str]()
    peer = Peer(target.grpc)
    for _ in range(20_000):
        if not peer.open:
            seen += peer.seen
            peer = Peer(target.grpc)
        content = rng.randbytes(rng.choice(_ODD_SIZES))
        sent = frame(rng.randrange(_KINDS), rng.randrange(256), rng.choice(_ODD_STREAMS), content)
        if not peer.send(sent, until=target.until) and time.monotonic() > target.until:
            break
    return seen + held([peer], 1.0)


def calls(
    target: Target, messages: Sequence[bytes], *, at_once: int = 16, within_s: float = 30.0, path: str = PATH
) -> Counter[str]:
    """Requests over four connections, so many under way at a time; how they ended."""
    seen: Counter[str] = Counter()
    room, lock = threading.Semaphore(at_once), threading.Lock()
    ends = min(target.until, time.monotonic() + within_s)

    def ended(call: "grpc.Future[bytes]") -> None:
        with lock:
            seen[call.code().name if hasattr(call, "code") else "lost"] += 1
        room.release()

    channels = [own_channel(f"127.0.0.1:{target.grpc}") for _ in range(4)]
    begun = []
    for number, asked in enumerate(messages):
        if not room.acquire(timeout=max(0.0, ends - time.monotonic())):
            break
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channels[number % 4].unary_unary(path)
        begun.append(infer.future(asked))
        begun[-1].add_done_callback(ended)
    while sum(seen.values()) < len(begun) and time.monotonic() < ends:
        time.sleep(0.05)
    for call in begun:
        call.cancel()
    for channel in channels:
        channel.close()
    return seen


def _announce(peer: Peer) -> None:
    """Begin a call with a message of 1 MiB that does not follow."""
    peer.send(headers(PATH) + frame(DATA, 0, 1, message(b"", announced=MIB)))


def opened(target: Target, begin: Callable[[Peer], object]) -> Peer | None:
    """A connection with its beginning sent; None where the server takes none."""
    try:
        peer = Peer(target.grpc)
    except OSError:
        return None
    begin(peer)
    return peer


def together(target: Target, one: Callable[[Peer], object], count: int, *, window: int = 65_535) -> list[Peer]:
    """So many connections, each served by a thread until it has said all."""
    peers = [Peer(target.grpc, window=window) for _ in range(count)]
    threads = [threading.Thread(target=one, args=(peer,)) for peer in peers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return peers


def held(peers: Sequence[Peer | None], seconds: float) -> Counter[str]:
    """Hold connections for a while, then close them; what the server did to them."""
    seen: Counter[str] = Counter({"refused": sum(peer is None for peer in peers)})
    opened = [peer for peer in peers if peer is not None]
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for peer in opened:
            peer.look(0.0005)
        time.sleep(0.05)
    for peer in opened:
        seen += peer.seen
        seen["held"] += peer.open
        peer.close()
    return +seen
