"""Labelled pictures as requests, and how many of an answer's are right."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inferry_client.messages.requests import infer
from inferry_proto.open_inference_pb2 import ModelInferResponse
from inferry_trainer.datasets.idx import read_idx_images, read_idx_labels

INPUT = "images"


@dataclass
class Answered:
    """One request that was answered.

    Attributes:
        request: its number among those that are sent again and again.
        seconds: from when it was due to its answer.
        message: the response.
    """

    request: int
    seconds: float
    message: bytes


class Pictures:
    """Labelled pictures as requests; the last one has the pictures that are left.

    Args:
        images: `(N, H, W, C)` uint8.
        labels: `(N,)`, the numbers of their classes.
        rows: pictures a request.
    """

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.uint8], rows: int) -> None:
        starts = range(rows, len(images), rows)
        self._images, self._labels = np.split(images, starts), np.split(labels, starts)

    @property
    def rows(self) -> list[int]:
        """Pictures of each request."""
        return [len(labels) for labels in self._labels]

    def requests(self, model: str, *, accept_variant: bool) -> list[bytes]:
        """The bytes of every request."""
        return [
            infer(model, {INPUT: part}, accept_variant=accept_variant).request.SerializeToString()
            for part in self._images
        ]

    def right(self, answer: Answered) -> tuple[int, bool]:
        """How many pictures of a request got their own label, and whether a variant answered in place of the model."""
        response = ModelInferResponse.FromString(answer.message)
        own = self._labels[answer.request]
        scores = np.frombuffer(response.raw_output_contents[0], np.float32).reshape(len(own), -1)
        return int((scores.argmax(axis=1) == own).sum()), "variant" in response.parameters


def read_mnist(folder: Path, rows: int) -> Pictures:
    """MNIST's test pictures."""
    images = read_idx_images(folder / "t10k-images-idx3-ubyte.gz")[..., None]
    return Pictures(images, read_idx_labels(folder / "t10k-labels-idx1-ubyte.gz"), rows)
