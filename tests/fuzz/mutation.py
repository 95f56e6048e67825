"""Bytes that are nearly right: a file of the corpus with a few seeded faults."""

import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
_MOST_BYTES = 1 << 20  # of a case
_EDGES = (0, 1, *(2**bits + more for bits in (7, 8, 15, 16, 31, 32, 63) for more in (-1, 0)), 2**64 - 1)

_NUMBERS = (b"-1", b"0", b"1e400", b"1e-400", b"NaN", b"-Infinity", b"2147483648", b"9223372036854775808",
            b"18446744073709551616", b"1" * 5000, b"0.5", b"true", b"null")  # fmt: skip
_TEXTS = (b'"\\ud800"', b'"\\u0000"', b'""', b'"../x"', b"'", b'"', b"\\", b"\xff", b"\xef\xbb\xbf", b"\x00",
          b"\n", b"#")  # fmt: skip
_SHAPES = (b"{", b"}", b"[", b"]", b"[]", b"{}", b'{"a":', b",", b":", b"<", b">")
TOKENS = (*_NUMBERS, *_TEXTS, *_SHAPES)
"""What JSON and protobuf's text format can be spoiled with."""


@cache
def corpus(target: str) -> tuple[bytes, ...]:
    """The files kept for a target, in the order of their names."""
    return tuple(path.read_bytes() for path in sorted((CORPUS / target).iterdir()))


def rng_of(target: str, seed: int) -> random.Random:
    """The same numbers for the same target and seed, on every machine."""
    return random.Random(f"{target} {seed}")


def mutated(data: bytes, rng: random.Random, *, tokens: Sequence[bytes] = (), most: int = 4) -> bytes:
    """The bytes with up to so many faults; now and then with none."""
    for _ in range(rng.randrange(most + 1)):
        change = rng.choice(_CHANGES)
        data = _write_token(data, rng, tokens) if tokens and rng.random() < 0.5 else change(data, rng)
    return data[:_MOST_BYTES]


def _place(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 1, 2, 4, 8, rng.randrange(1, 64))))


def _flip(data: bytes, rng: random.Random) -> bytes:
    start, _ = _place(data, rng)
    changed = bytearray(data)
    if start < len(data):
        changed[start] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    start, end = _place(data, rng)
    return data[:start] + rng.randbytes(end - start) + data[end:]


def _edge(data: bytes, rng: random.Random) -> bytes:
    start, size = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 8))
    value = (rng.choice(_EDGES) & (1 << 8 * size) - 1).to_bytes(size, rng.choice(("little", "big")))
    return data[:start] + value + data[start + size :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    start, _ = _place(data, rng)
    return data[:start] + rng.randbytes(rng.randrange(1, 9)) + data[start:]


def _drop(data: bytes, rng: random.Random) -> bytes:
    start, end = _place(data, rng)
    return data[:start] + data[end:]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start, end = _place(data, rng)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 40)) + data[end:]


def _move(data: bytes, rng: random.Random) -> bytes:
    start, end = _place(data, rng)
    rest = data[:start] + data[end:]
    to = rng.randrange(len(rest) + 1)
    return rest[:to] + data[start:end] + rest[to:]


def _cut_off(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _flip, _overwrite, _edge, _insert, _drop, _repeat, _move, _cut_off,
)  # fmt: skip


def _write_token(data: bytes, rng: random.Random, tokens: Sequence[bytes]) -> bytes:
    """A token over a few bytes, at times over and over: nesting that never ends."""
    start, end = _place(data, rng)
    token = rng.choice(tokens) * rng.choice((1, 1, 1, 1, 2, 200, 100_000 if rng.random() < 0.2 else 3))
    return data[:start] + token + data[rng.choice((start, end)) :]
