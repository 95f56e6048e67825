"""Attacks by clients that connect, ask something, and then say and read nothing."""

import time
from collections import Counter

from bench.attacks.by_grpc import held
from bench.attacks.frames import DATA, Peer, frame, headers, message
from bench.attacks.honest import PATH, request
from bench.attacks.target import Target
from inferry_proto.services import OPEN_INFERENCE

_STREAM = OPEN_INFERENCE["ModelStreamInfer"].path
_ANOTHER = "127.0.0.2"  # where the good caller does not come from
_ENDS = 1


def one_address(target: Target) -> Counter[str]:
    """600 connections from one address that say hello and nothing more, for six seconds; Inferry takes 400."""
    peers: list[Peer | None] = []
    for _ in range(600):
        try:
            peers.append(Peer(target.grpc, host=_ANOTHER))
        except OSError:
            peers.append(None)
    return held(peers, 6.0)


def connections(target: Target) -> Counter[str]:
    """300 connections that ask once and then nothing, for ten seconds; Inferry waits for two (by default 300)."""
    asked = message(request(9))
    peers = []
    for _ in range(300):
        peers.append(Peer(target.grpc))
        peers[-1].send(headers(PATH) + frame(DATA, _ENDS, 1, asked))
    return held(peers, 10.0)


def streams(target: Target) -> Counter[str]:
    """1,000 streams on one connection that ask once and then nothing, for ten seconds; Inferry waits two (3,600)."""
    return held([_with_streams(target, 1000)], 10.0)


def many_streams(target: Target) -> Counter[str]:
    """800 streams on each of ten connections that ask nothing, for eight seconds; Inferry has 1,000 wait (32,768)."""
    peers = [Peer(target.grpc) for _ in range(10)]
    for first in range(1, 1600, 80):
        for peer in peers:
            peer.send(b"".join(headers(_STREAM, number) for number in range(first, first + 80, 2)), until=target.until)
    return held(peers, 8.0)


def streams_unread(target: Target) -> Counter[str]:
    """500 streams on each of four connections whose replies no window takes, for ten seconds; Inferry waits two."""
    return held([_with_streams(target, 500, window=0) for _ in range(4)], 10.0)


def _with_streams(target: Target, count: int, *, window: int = 65_535) -> Peer:
    """A connection with so many streams, each of which has asked once."""
    peer, asked = Peer(target.grpc, window=window), message(request(9))
    for number in range(1, 2 * count, 2):
        peer.send(headers(_STREAM, number), until=target.until)
        if not peer.send_data(number, asked, until=min(target.until, time.monotonic() + 5.0)):
            break
    return peer
