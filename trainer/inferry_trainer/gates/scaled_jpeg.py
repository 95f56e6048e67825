"""What it costs to decode large JPEG pictures at a fraction of their size: `--scaled-jpeg`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_trainer.datasets import Part
from inferry_trainer.datasets.labelled_folder import find_labelled_pictures
from inferry_trainer.errors import ConfigError, GateError
from inferry_trainer.evaluation.evaluate import Evaluation
from inferry_trainer.gates.result import GateResult


@dataclass(frozen=True, eq=False)
class DecodedTwice:
    """The same labelled pictures, decoded in both ways.

    Attributes:
        whole: decoded at their own size.
        scaled: decoded smaller, where that is done at all.
    """

    whole: Part
    scaled: Part

    @property
    def different(self) -> int:
        """Pictures that were decoded smaller, and have other pixels for it."""
        return int(np.any(self.whole.images != self.scaled.images, axis=(1, 2, 3)).sum())


def without_scaling(spec: Preprocessing) -> Preprocessing:
    """Preprocessing that decodes every picture at its own size, as training and the other gates do."""
    whole = Preprocessing()
    whole.CopyFrom(spec)
    whole.scaled_jpeg = False
    return whole


def with_scaling(spec: Preprocessing) -> Preprocessing:
    """Preprocessing that decodes large JPEG pictures smaller.

    Raises:
        ConfigError: it cuts pictures at coordinates of their own size.
    """
    if spec.HasField("crop"):
        raise ConfigError("--scaled-jpeg is without effect where the preprocessing has a crop box; leave it out")
    scaled = Preprocessing()
    scaled.CopyFrom(spec)
    scaled.scaled_jpeg = True
    return scaled


def decode_twice(folder: Path, labels: tuple[str, ...], spec: Preprocessing) -> DecodedTwice:
    """Read pictures that lie in a folder for each label.

    Args:
        folder: of pictures as large as those that will be sent.
        labels: line i names class i.
        spec: of the model, with or without scaling.

    Raises:
        DatasetError: the folder cannot be read as one of labelled pictures.
        ConfigError: no picture in it would be decoded smaller, so that nothing was measured.
    """
    scaled, whole = with_scaling(spec), without_scaling(spec)
    twice = DecodedTwice(
        whole=find_labelled_pictures(folder, labels, whole).prepare(),
        scaled=find_labelled_pictures(folder, labels, scaled).prepare(),
    )
    if not twice.different:  # guard: gates-scaled-measured
        raise ConfigError(
            f"none of the {len(twice.whole)} pictures in {folder} is a JPEG that would be decoded smaller: expected "
            f"some of at least {4 * max(spec.height, spec.width)} pixels a side, as those that will be sent"
        )
    return twice


def check_scaled_jpeg(whole: Evaluation, scaled: Evaluation, *, different: int, limit: float) -> GateResult:
    """Hold the accuracy with pictures decoded smaller against that with whole ones.

    Args:
        whole: of the graph, on whole pictures.
        scaled: of the graph, on the same pictures decoded smaller.
        different: how many of them were.
        limit: percentage points that may be lost.

    Raises:
        GateError: `scaled-jpeg`.
    """
    drop = 100 * (whole.accuracy - scaled.accuracy)
    if drop > limit + 1e-9:  # guard: gates-scaled-drop
        raise GateError(
            "scaled-jpeg",
            f"with JPEGs decoded smaller the accuracy is {scaled.accuracy:.4f}, with whole ones {whole.accuracy:.4f}: "
            f"{drop:.3f} percentage points are lost; at most {limit:g} are accepted (--max-accuracy-drop). Export "
            f"without --scaled-jpeg. One of the {whole.images} images is {100 / whole.images:.3g} points",
        )
    return GateResult(
        "scaled-jpeg",
        {
            "accuracy": scaled.accuracy,
            "accuracy_whole": whole.accuracy,
            "images": whole.images,
            "images_decoded_smaller": different,
            "points": drop,
            "points_limit": limit,
        },
    )
