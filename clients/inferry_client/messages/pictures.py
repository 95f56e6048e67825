"""Pictures as callers have them, made ready to be sent."""

import io
import sys
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from inferry_client.errors import InvalidRequestError
from inferry_proto import classifier_pb2

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

Picture: TypeAlias = "bytes | bytearray | memoryview | str | PathLike[str] | NDArray[np.uint8] | PilImage"
Pictures: TypeAlias = "Picture | Sequence[Picture]"

_ACCEPTED = "a path, an encoded picture as bytes, a PIL image or a uint8 array"
_EXIF_ORIENTATION = 0x0112


def as_sequence(images: Pictures) -> Sequence[Picture]:
    """One picture or several, as several.

    An array of four axes is a sequence of pictures, and so is one of three whose last axis is
    longer than 4; any other array is one picture.

    Raises:
        InvalidRequestError: nothing that can be a picture, or none at all.
    """
    if isinstance(images, np.ndarray):
        if images.ndim == 3 and images.shape[2] in (2, 4):  # guard: pictures-of-four-channels
            raise InvalidRequestError(
                f"images is an array of shape {images.shape}, so of {images.shape[2]} channels; expected 1 or 3 "
                "(a PIL image may be transparent), or (N, H, W, 1) for grey pictures of that width"
            )
        one = images.ndim == 2 or (images.ndim == 3 and images.shape[2] in (1, 3))
        return [images] if one else _not_empty(list(images) if images.ndim else [images])
    if isinstance(images, (bytes, bytearray, memoryview, str, PathLike)) or _is_pil(images):
        return [images]  # type: ignore[list-item]  # what it is has just been checked
    if isinstance(images, Mapping) or hasattr(images, "read"):
        raise InvalidRequestError(f"images is a {type(images).__name__}; expected {_ACCEPTED}, or a sequence of them")
    try:
        return _not_empty(list(images))  # type: ignore[arg-type]  # it was no single picture
    except TypeError:
        raise InvalidRequestError(
            f"images is a {type(images).__name__}; expected {_ACCEPTED}, or a sequence of them"
        ) from None


def read_picture(position: int, picture: Picture) -> classifier_pb2.Image:
    """One picture as the request carries it.

    Pixels travel as they are. A PIL image that is neither grey nor RGB of 8 bits travels as a PNG
    file, so that the server flattens it as it does a file.

    Args:
        position: in the request, for messages.
        picture: as the caller has it.

    Raises:
        InvalidRequestError: no picture, or a file that cannot be read.
    """
    if isinstance(picture, bytes):
        return classifier_pb2.Image(encoded=picture)
    if isinstance(picture, (bytearray, memoryview)):
        return classifier_pb2.Image(encoded=bytes(picture))
    if isinstance(picture, np.ndarray):
        return _from_array(position, picture)
    if isinstance(picture, (str, PathLike)):
        return classifier_pb2.Image(encoded=_read_file(position, picture))
    if _is_pil(picture):
        return _from_pil(position, picture)
    raise InvalidRequestError(f"image {position} is a {type(picture).__name__}; expected {_ACCEPTED}")


def _not_empty(pictures: list[Picture]) -> list[Picture]:
    if not pictures:
        raise InvalidRequestError("images is empty; expected at least one picture")
    return pictures


def _read_file(position: int, path: "str | PathLike[str]") -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte in it
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequestError(
            f"image {position} is a {type(path).__name__}, and the file it names cannot be read: {path}: {reason}"
        ) from error


def _from_array(position: int, picture: NDArray[np.uint8]) -> classifier_pb2.Image:
    shape = picture.shape if picture.ndim == 3 else (*picture.shape, 1)
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or shape[2] not in (1, 3) or 0 in shape:
        raise InvalidRequestError(
            f"image {position} is {picture.dtype} of shape {picture.shape}; "
            "expected uint8 of shape (H, W, 1 or 3) or (H, W)"
        )
    pixels = classifier_pb2.Pixels(height=shape[0], width=shape[1], channels=shape[2], data=picture.tobytes())
    return classifier_pb2.Image(pixels=pixels)


def _is_pil(picture: object) -> bool:
    image_module = sys.modules.get("PIL.Image")  # who has such an image has imported it
    return image_module is not None and isinstance(picture, image_module.Image)


def _from_pil(position: int, picture: "PilImage") -> classifier_pb2.Image:
    from PIL import ImageOps

    try:
        if picture.getexif().get(_EXIF_ORIENTATION, 1) != 1:
            picture = ImageOps.exif_transpose(picture)
        if picture.mode in ("L", "RGB") and not picture.has_transparency_data:
            return _from_array(position, np.asarray(picture))
        file = io.BytesIO()
        _as_png_has_it(picture).save(file, "PNG")
    except InvalidRequestError:
        raise
    except Exception as error:  # Pillow raises whatever a file leads it to that is damaged, or closed since
        problem = str(error) or "its file is closed or damaged"
        raise InvalidRequestError(f"image {position} is a PIL image that cannot be read: {problem}") from error
    return classifier_pb2.Image(encoded=file.getvalue())


def _as_png_has_it(picture: "PilImage") -> "PilImage":
    """The same in a mode that a PNG file can have, with its transparency; whole numbers have 16 bits."""
    from PIL import Image

    if picture.mode.startswith("I"):
        return Image.fromarray(np.asarray(picture).clip(0, 0xFFFF).astype(np.uint16))
    if picture.mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        return picture
    return picture.convert({"PA": "RGBA", "RGBa": "RGBA", "La": "LA"}.get(picture.mode, "RGB"))
