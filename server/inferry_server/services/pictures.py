"""What a picture may cost."""

from dataclasses import dataclass

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_proto.preprocessing import MAX_PIXELS, MAX_SCANS

_ALWAYS_PIXELS = 16 * 1024 * 1024  # a camera's picture; a quarter of a second and 240 MiB at most
_PIXELS_PER_PIXEL = 1024  # that a model takes: larger pictures are scaled down by more than 32 in each direction


@dataclass(frozen=True)
class PictureLimits:
    """The limits of decoding.

    Attributes:
        max_pixels: of any picture, whatever the model.
        max_scans: of a JPEG.
        timeout_s: for all pictures of a request.
    """

    max_pixels: int = MAX_PIXELS
    max_scans: int = MAX_SCANS
    timeout_s: float = 10.0

    def pixels_for(self, preprocessing: Preprocessing) -> int:
        """The most pixels of a picture for a model: in proportion to those that it takes, a camera's in any case."""
        own = _PIXELS_PER_PIXEL * preprocessing.height * preprocessing.width
        return min(self.max_pixels, max(_ALWAYS_PIXELS, own))  # guard: pictures-by-model
