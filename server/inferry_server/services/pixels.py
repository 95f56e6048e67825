"""A picture in a request, decoded and brought to the size that a model takes."""

from collections.abc import Callable

import numpy as np

from inferry_proto import classifier_pb2 as pb
from inferry_proto.manifest_pb2 import Preprocessing
from inferry_proto.preprocessing import CostlyPictureError, PictureError, UInt8Array, prepare_image, prepare_pixels
from inferry_server.errors import DecodingError, PictureTooCostlyError
from inferry_server.services.pictures import PictureLimits


def pixels_of(
    image: pb.Image, preprocessing: Preprocessing, position: int, limits: PictureLimits, go_on: Callable[[], None]
) -> UInt8Array:
    """One picture of a request as a model takes it.

    Args:
        image: encoded, or pixels.
        preprocessing: of the model.
        position: of the picture in its request, for errors.
        limits: of decoding.
        go_on: called now and then while decoding; what it raises ends it.

    Returns:
        `(H, W, C)` uint8, as the preprocessing says.

    Raises:
        PictureTooCostlyError: it is above one of the limits.
        DecodingError: it is no picture that can be decoded, or not as many bytes as its size says.
    """
    try:
        if image.WhichOneof("content") == "pixels":
            return prepare_pixels(_raw_pixels(image.pixels), preprocessing)
        return prepare_image(
            image.encoded,
            preprocessing,
            max_pixels=limits.pixels_for(preprocessing),
            max_scans=limits.max_scans,
            go_on=go_on,
        )
    except CostlyPictureError as error:
        raise PictureTooCostlyError(f"image {position}: {error}") from error
    except PictureError as error:
        raise DecodingError(f"image {position}: {error}") from error


def _raw_pixels(pixels: pb.Pixels) -> UInt8Array:
    expected = pixels.height * pixels.width * pixels.channels
    if len(pixels.data) != expected:
        raise PictureError(
            f"{len(pixels.data)} bytes came for {pixels.height}x{pixels.width}x{pixels.channels} pixels; "
            f"expected {expected}"
        )
    return np.frombuffer(pixels.data, np.uint8).reshape(pixels.height, pixels.width, pixels.channels)
