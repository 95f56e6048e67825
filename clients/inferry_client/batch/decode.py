"""Pictures read and decoded, a chunk at a time: what decoding processes run, and threads where there are none."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferry_client.batch.priority import let_others_go
from inferry_client.batch.records import (
    NO_PICTURE,
    TOO_COSTLY,
    UNREADABLE,
    Content,
    ContentError,
    Fault,
    PixelsContent,
    content_digest,
    is_remote,
)
from inferry_proto.manifest_pb2 import Preprocessing
from inferry_proto.preprocessing import CostlyPictureError, PictureError, channel_count, prepare_image, prepare_pixels

_READS_AT_A_TIME = 16
_A_TURN = 8  # small pictures, which take 40 us each; a file counts once more for every KiB


@dataclass(frozen=True)
class DecodeSettings:
    """How pictures become a model's input.

    Attributes:
        preprocessing: of the model, serialized.
        most_bytes: of a file; one with more is an error.
    """

    preprocessing: bytes
    most_bytes: int


@dataclass(frozen=True)
class Decoded:
    """A chunk of pictures.

    Attributes:
        pixels: `(N, H, W, C)` uint8 of those without a fault.
        digests: of all; empty where nothing could be read.
        faults: by position in the chunk.
        read_s: spent reading.
        decode_s: spent decoding.
    """

    pixels: NDArray[np.uint8]
    digests: list[str]
    faults: dict[int, Fault]
    read_s: float
    decode_s: float


def decode_chunk(contents: Sequence[Content], settings: DecodeSettings) -> Decoded:
    """Read and decode pictures; one that cannot be is a fault, and nobody else's."""
    spec = Preprocessing.FromString(settings.preprocessing)
    pixels: list[NDArray[np.uint8]] = []
    digests: list[str] = []
    faults: dict[int, Fault] = {}
    since_turn = 0
    decode_s, began = 0.0, time.perf_counter()
    ahead = _read_ahead(contents, settings)
    read_s = time.perf_counter() - began
    for position, content in enumerate(contents):
        started = time.perf_counter()
        digest = ""
        try:
            try:
                data = ahead[position]() if ahead else content.read(most_bytes=settings.most_bytes)
            finally:
                done_reading = time.perf_counter()
                read_s += done_reading - started
            since_turn += len(data) >> 10
            digest = content_digest(data)
            pixels.append(_prepare(content, data, spec))
            decode_s += time.perf_counter() - done_reading
        except ContentError as error:
            faults[position] = Fault(UNREADABLE, str(error))
        except CostlyPictureError as error:
            faults[position] = Fault(TOO_COSTLY, str(error))
        except PictureError as error:
            faults[position] = Fault(NO_PICTURE, str(error))
        except MemoryError:
            faults[position] = Fault(TOO_COSTLY, "there is no memory to decode it")
        digests.append(digest)
        since_turn += 1
        if since_turn >= _A_TURN:  # guard: batch-decoder-turns
            let_others_go()
            since_turn = 0
    stacked = np.stack(pixels) if pixels else np.empty((0, *_shape(spec)), np.uint8)
    return Decoded(stacked, digests, faults, read_s, decode_s)


def join_chunks(chunks: Sequence[Decoded]) -> Decoded:
    """Chunks one after the other, as one."""
    faults: dict[int, Fault] = {}
    digests: list[str] = []
    for chunk in chunks:
        faults |= {len(digests) + position: fault for position, fault in chunk.faults.items()}
        digests += chunk.digests
    return Decoded(
        np.concatenate([chunk.pixels for chunk in chunks]),
        digests,
        faults,
        sum(chunk.read_s for chunk in chunks),
        sum(chunk.decode_s for chunk in chunks),
    )


def failed_chunk(fault: Fault, settings: DecodeSettings) -> Decoded:
    """One picture that nobody could decode."""
    spec = Preprocessing.FromString(settings.preprocessing)
    return Decoded(np.empty((0, *_shape(spec)), np.uint8), [""], {0: fault}, 0.0, 0.0)


def _read_ahead(contents: Sequence[Content], settings: DecodeSettings) -> list[Callable[[], bytes]]:
    """Where some are elsewhere, all are being read, a few at a time: who answers is far away more often than busy."""
    if not any(is_remote(content) for content in contents):
        return []
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_READS_AT_A_TIME, thread_name_prefix="batch-read") as pool:
        return [pool.submit(content.read, most_bytes=settings.most_bytes).result for content in contents]


def _shape(spec: Preprocessing) -> tuple[int, int, int]:
    return spec.height, spec.width, channel_count(spec)


def _prepare(content: Content, data: bytes, spec: Preprocessing) -> NDArray[np.uint8]:
    if isinstance(content, PixelsContent):
        return prepare_pixels(np.frombuffer(data, np.uint8).reshape(content.shape), spec)
    return prepare_image(data, spec)
