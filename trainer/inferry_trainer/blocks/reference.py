"""The third opinion: what a trained network answers, computed in float64 from the building blocks.

Keras and ONNX Runtime may agree with each other and both be wrong about the model, most of all
where one was converted from the other. This forward pass shares nothing with either but the
weights: no graph, no converter, no kernel library, and rounding errors 2^29 times smaller.
"""

from collections.abc import Sequence

import numpy as np

from inferry_trainer.arrays import UInt8Array
from inferry_trainer.blocks.activations import sigmoid, softmax
from inferry_trainer.blocks.checks import Float64Array
from inferry_trainer.blocks.layers import Activation, Convolution, Dense, Flatten, GlobalMeanPooling, Layer
from inferry_trainer.datasets.pixels import PIXEL_MAX

# How far probabilities that were computed in float32 on a CPU may lie from the reference. Each logit
# is rounded by a few units in the last place (6e-8 of its size), and a probability moves by at most
# half of what the logits do: logits of 50 err by some 1e-5, smaller ones by less. Measured: 1.4e-6
# for the chapter's MNIST network, trained, over all test images; up to 3e-6 for random weights.
# One layer's weights off by 1e-3 of their size moved the 64 most doubtful of these images by 4e-4
# to 5e-3. A GPU's TF32 has 13 bits less and is not meant here.
FLOAT32_TOLERANCE = 1e-5

_CHUNK = 16  # images at once: windows of 16 take some 40 MB, of 1,000 they would take gigabytes
_ROW_SUM_TOLERANCE = 1e-9


def reference_probabilities(layers: Sequence[Layer], images: UInt8Array) -> Float64Array:
    """Each class's probability, whatever the network ends in.

    Softmax is left as it is, and so is a sigmoid's p, which becomes [1 - p, p]; anything else is
    taken for logits: K of them, or a single one, which is the second class's.

    To compare with another program, choose images of which the network is in doubt: of the others it
    is so certain that wrong weights may hardly show (1e-5 in place of 4e-4).

    Args:
        layers: of a network that takes pixels in [0, 1], from `read_keras_layers`.
        images: `(N, H, W, C)` uint8, 0-255, `N` at least 1.

    Returns:
        `(N, K)` float64; each row's sum is 1.

    Raises:
        ValueError: images of another dtype, rank or shape than the network takes, or outputs that are
            not one row of probabilities an image (several labels at once, for example).
    """
    outputs = reference_outputs(layers, images)
    if outputs.ndim != 2 or len(outputs) != len(images):
        raise ValueError(f"outputs: expected ({len(images)}, K); came {outputs.shape}")
    probabilities = _as_probabilities(outputs, last=_last_activation(layers))
    off = float(np.abs(probabilities.sum(axis=1) - 1).max())
    if not off <= _ROW_SUM_TOLERANCE:  # NaN included
        raise ValueError(f"outputs: expected probabilities whose sum is 1 an image; came one that is off by {off:.3g}")
    return probabilities


def reference_outputs(layers: Sequence[Layer], images: UInt8Array) -> Float64Array:
    """A network's outputs as its last layer gives them, in float64.

    Args:
        layers: of a network that takes pixels in [0, 1].
        images: `(N, H, W, C)` uint8, 0-255, `N` at least 1.

    Raises:
        ValueError: as for `reference_probabilities`; a layer's own complaint names the layer.
    """
    if not layers:
        raise ValueError("layers: expected at least one; came none")
    if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
        raise ValueError(f"images: expected (N, H, W, C) uint8; came {images.shape} {images.dtype}")
    chunks = (images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK))
    return np.concatenate([_forward(layers, chunk / np.float64(PIXEL_MAX)) for chunk in chunks])


def _forward(layers: Sequence[Layer], pixels: Float64Array) -> Float64Array:
    outputs = pixels
    for layer in layers:
        try:
            outputs = layer.forward(outputs)
        except ValueError as error:
            raise ValueError(f"layer {layer.name!r}, given {outputs.shape}: {error}") from error
    return outputs


def _last_activation(layers: Sequence[Layer]) -> str:
    """The function that made the outputs what they are: the last one that is not only moved or averaged."""
    for layer in reversed(layers):
        if isinstance(layer, Convolution | Dense | Activation):
            return layer.activation
        if not isinstance(layer, Flatten | GlobalMeanPooling):
            break
    return "linear"


def _as_probabilities(outputs: Float64Array, *, last: str) -> Float64Array:
    single = outputs.shape[1] == 1
    if last == "softmax":
        return outputs
    if last == "sigmoid":
        return np.concatenate([1.0 - outputs, outputs], axis=1) if single else outputs
    return np.concatenate([sigmoid(-outputs), sigmoid(outputs)], axis=1) if single else softmax(outputs)
