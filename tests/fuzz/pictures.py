"""Damaged pictures: decoded to the pixels that a model takes, or refused as pictures are."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from fuzz.mutation import corpus, mutated, rng_of
from fuzz.target import Check, FindingError, Target, expect
from inferry_proto.manifest_pb2 import Preprocessing
from inferry_proto.preprocessing import PictureError, prepare_image

_MAX_PIXELS = 1 << 20  # a mutated size stays cheap to decode
_MOST_READS = 10_000  # of pieces of 16 KiB, by a decoder: none of these files has more than one
_SPECS = (
    Preprocessing(color_mode=Preprocessing.RGB, height=5, width=7, filter=Preprocessing.BILINEAR, scaled_jpeg=True),
    Preprocessing(color_mode=Preprocessing.GRAYSCALE, height=4, width=4, filter=Preprocessing.NEAREST),
)


def check_picture(data: bytes) -> bool:
    accepted = [_prepare(data, spec, channels) for spec, channels in zip(_SPECS, (3, 1), strict=True)]
    return any(accepted)


def _prepare(data: bytes, spec: Preprocessing, channels: int) -> bool:
    reads = 0

    def go_on() -> None:
        nonlocal reads
        reads += 1
        if reads > _MOST_READS:
            raise FindingError(f"a decoder read {reads} times from {len(data)} bytes")

    try:
        pixels = prepare_image(data, spec, max_pixels=_MAX_PIXELS, go_on=go_on)
    except PictureError:
        return False
    wanted = (spec.height, spec.width, channels)
    expect(pixels.shape == wanted and pixels.dtype == np.uint8, f"expected {wanted} uint8, got {pixels.shape}")
    return True


def _mutate(seed: int) -> bytes:
    rng = rng_of("pictures", seed)
    return mutated(rng.choice(corpus("pictures")), rng)


@contextmanager
def _opened() -> Iterator[Check]:
    yield check_picture


PICTURES = Target("pictures", _mutate, _opened)
