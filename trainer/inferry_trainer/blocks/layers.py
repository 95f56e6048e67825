"""The layers of the chapter's networks as plain data: trained arrays, and the block that uses them.

They follow Keras' definitions, of which two differ from the chapter's: a Conv2D is a
cross-correlation, so that its kernels are rotated before they are convolved; and `same` pads as
`same_as_keras` says. Dropout has no layer here: at inference it does nothing.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np

from inferry_trainer.blocks.activations import ACTIVATIONS
from inferry_trainer.blocks.checks import Float64Array, as_float64
from inferry_trainer.blocks.convolution import convolve_channels
from inferry_trainer.blocks.padding import same_as_keras
from inferry_trainer.blocks.pooling import global_mean_pool, max_pool, mean_pool

ActivationName: TypeAlias = Literal["linear", "relu", "sigmoid", "softmax"]
LayerPadding: TypeAlias = Literal["same", "valid"]


class Layer(Protocol):
    """One step of a network: float64 in, float64 out, `N` first."""

    @property
    def name(self) -> str:
        """As in the model the layer was read from."""

    def forward(self, inputs: Float64Array) -> Float64Array:
        """The layer's outputs at inference."""


@dataclass(frozen=True, eq=False)
class Convolution:
    """Keras' Conv2D: kernels `(m1, m2, C, F)` as Keras stores them, not rotated; bias `(F,)`."""

    name: str
    kernels: Float64Array
    bias: Float64Array | None
    strides: tuple[int, int]
    padding: LayerPadding
    activation: ActivationName

    def forward(self, inputs: Float64Array) -> Float64Array:
        """`(N, H, W, C)` to `(N, H', W', F)`."""
        kernels = as_float64(f"{self.name}'s kernels", self.kernels, axes="mmCF")
        m1, m2 = kernels.shape[:2]
        return convolve_channels(
            _pad(inputs, (m1, m2), self.strides, self.padding, value=0.0),
            kernels[::-1, ::-1],
            self.bias,
            strides=self.strides,
            activation=ACTIVATIONS[self.activation],
        )


@dataclass(frozen=True, eq=False)
class Dense:
    """Keras' Dense: kernel `(D, K)`, bias `(K,)`."""

    name: str
    kernel: Float64Array
    bias: Float64Array | None
    activation: ActivationName

    def forward(self, inputs: Float64Array) -> Float64Array:
        """`(..., D)` to `(..., K)`."""
        z = inputs @ self.kernel
        return ACTIVATIONS[self.activation](z if self.bias is None else z + self.bias)


@dataclass(frozen=True)
class MaxPooling:
    """Keras' MaxPooling2D; what `same` adds never wins."""

    name: str
    size: tuple[int, int]
    strides: tuple[int, int]
    padding: LayerPadding

    def forward(self, inputs: Float64Array) -> Float64Array:
        """`(N, H, W, C)` to `(N, H', W', C)`."""
        return max_pool(_pad(inputs, self.size, self.strides, self.padding, -np.inf), self.size, strides=self.strides)


@dataclass(frozen=True)
class MeanPooling:
    """Keras' AveragePooling2D; what `same` adds is not counted."""

    name: str
    size: tuple[int, int]
    strides: tuple[int, int]
    padding: LayerPadding

    def forward(self, inputs: Float64Array) -> Float64Array:
        """`(N, H, W, C)` to `(N, H', W', C)`."""
        values, ones = (_pad(x, self.size, self.strides, self.padding, 0.0) for x in (inputs, np.ones_like(inputs)))
        counted = mean_pool(ones, self.size, strides=self.strides)
        return mean_pool(values, self.size, strides=self.strides) / counted


@dataclass(frozen=True)
class GlobalMeanPooling:
    """Keras' GlobalAveragePooling2D."""

    name: str

    def forward(self, inputs: Float64Array) -> Float64Array:
        """`(N, H, W, C)` to `(N, C)`."""
        return global_mean_pool(inputs)


@dataclass(frozen=True)
class Flatten:
    """Keras' Flatten: row by row, channels last."""

    name: str

    def forward(self, inputs: Float64Array) -> Float64Array:
        """`(N, ...)` to `(N, D)`."""
        return inputs.reshape(len(inputs), -1)


@dataclass(frozen=True, eq=False)
class Normalization:
    """Keras' BatchNormalization over the last axis, with the statistics it learned: arrays `(C,)`.

    Source: Ioffe and Szegedy 2015 (arXiv:1502.03167), its transform at inference.
    """

    name: str
    gamma: Float64Array
    beta: Float64Array
    mean: Float64Array
    variance: Float64Array
    epsilon: float

    def forward(self, inputs: Float64Array) -> Float64Array:
        """`(..., C)` to the same."""
        return self.gamma * (inputs - self.mean) / np.sqrt(self.variance + self.epsilon) + self.beta


@dataclass(frozen=True)
class Activation:
    """An activation function that stands as a layer of its own."""

    name: str
    activation: ActivationName

    def forward(self, inputs: Float64Array) -> Float64Array:
        """Any shape to the same."""
        return ACTIVATIONS[self.activation](inputs)


def _pad(
    images: Float64Array, size: tuple[int, int], strides: tuple[int, int], padding: LayerPadding, value: float
) -> Float64Array:
    if padding == "valid":
        return images
    rows, columns = (same_as_keras(n, m, s) for n, m, s in zip(images.shape[1:3], size, strides, strict=True))
    return np.pad(images, ((0, 0), rows, columns, (0, 0)), constant_values=value)
