"""Building blocks: what a convolutional network computes, in NumPy, to be read beside the chapter.

    padding         how much to pad, and how large the output is
    convolution     of a signal, of an image, of images with several channels
    pooling         largest or mean value of each neighbourhood
    activations     ReLU, sigmoid, softmax
    losses          three cross-entropies, from probabilities or logits
    regularization  dropout and the L2 penalty

They earn their place as a third opinion on every export, beside Keras and ONNX Runtime:

    layers          the chapter's layers as plain data, computed by the blocks above
    keras_layers    reads them from a Keras model
    reference       a network's probabilities, in float64

Everything is float64, says what it expects and what came (ValueError), and imports neither Keras
nor TensorFlow. Source of the definitions: Python Machine Learning, 3rd edition, chapter 15.
"""

from inferry_trainer.blocks.activations import relu, sigmoid, softmax
from inferry_trainer.blocks.checks import Float64Array
from inferry_trainer.blocks.convolution import convolve1d, convolve2d, convolve_channels
from inferry_trainer.blocks.keras_layers import UnsupportedLayerError, read_keras_layers
from inferry_trainer.blocks.layers import Layer
from inferry_trainer.blocks.losses import (
    binary_cross_entropy,
    categorical_cross_entropy,
    sparse_categorical_cross_entropy,
)
from inferry_trainer.blocks.padding import output_size
from inferry_trainer.blocks.pooling import global_mean_pool, max_pool, mean_pool
from inferry_trainer.blocks.reference import FLOAT32_TOLERANCE, reference_outputs, reference_probabilities
from inferry_trainer.blocks.regularization import dropout, l2_penalty

__all__ = [
    "FLOAT32_TOLERANCE",
    "Float64Array",
    "Layer",
    "UnsupportedLayerError",
    "binary_cross_entropy",
    "categorical_cross_entropy",
    "convolve1d",
    "convolve2d",
    "convolve_channels",
    "dropout",
    "global_mean_pool",
    "l2_penalty",
    "max_pool",
    "mean_pool",
    "output_size",
    "read_keras_layers",
    "reference_outputs",
    "reference_probabilities",
    "relu",
    "sigmoid",
    "softmax",
    "sparse_categorical_cross_entropy",
]
