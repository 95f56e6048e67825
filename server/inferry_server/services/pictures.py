"""What a picture may cost, and which are small enough to be decoded by the thread that reads requests."""

from dataclasses import dataclass, replace

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_proto.preprocessing import MAX_PIXELS, MAX_SCANS

_ALWAYS_PIXELS = 16 * 1024 * 1024  # a camera's picture; a quarter of a second and 240 MiB at most
_SMALL_BYTES = 8 << 10  # of a request
_SMALL_PIXELS = 1 << 13  # of all its pictures: larger ones are decoded sooner by several threads
_SMALL_INPUT = 1 << 14  # pixels that the model takes of all of them: 64 x 64, four times
_SMALL_SCANS = 16
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

    def small(self, preprocessing: Preprocessing, *, count: int, nbytes: int) -> "PictureLimits | None":
        """Limits under which the pictures of a request take some tenths of a millisecond.

        Handing such pictures to another thread costs more than decoding them.

        Args:
            preprocessing: of the model.
            count: of the pictures, one at least.
            nbytes: of the request.

        Returns:
            None where the request cannot be small, whatever its pictures turn out to be.
        """
        taken = count * preprocessing.height * preprocessing.width
        if nbytes > _SMALL_BYTES or taken > _SMALL_INPUT:  # guard: pictures-small
            return None
        each = _SMALL_PIXELS // count
        return replace(self, max_pixels=min(self.max_pixels, each), max_scans=min(self.max_scans, _SMALL_SCANS))
