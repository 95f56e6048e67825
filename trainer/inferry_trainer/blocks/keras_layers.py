"""From a Keras model to the plain layers of the reference: the one module that knows Keras' configurations.

It reads what every model offers (`layers`, `get_config`, `get_weights`) and imports no Keras.
Whatever it does not know exactly it refuses: a third opinion on a similar network is worth nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from inferry_trainer.blocks.checks import Float64Array
from inferry_trainer.blocks.layers import (
    Activation,
    ActivationName,
    Convolution,
    Dense,
    Flatten,
    GlobalMeanPooling,
    Layer,
    LayerPadding,
    MaxPooling,
    MeanPooling,
    Normalization,
)

_ACTIVATIONS = ("linear", "relu", "sigmoid", "softmax")
_IDENTITIES = ("InputLayer", "Dropout", "SpatialDropout2D")  # at inference


class UnsupportedLayerError(ValueError):
    """A network, or one of its layers, that the building blocks cannot compute.

    Attributes:
        layer: its name in the model.
        kind: its class.
    """

    def __init__(self, layer: str, kind: str, reason: str) -> None:
        super().__init__(f"no reference for layer {layer!r} ({kind}): {reason}")
        self.layer, self.kind = layer, kind


def read_keras_layers(model: Any) -> tuple[Layer, ...]:
    """The layers of a sequential Keras model, in order, weights included as float64.

    Args:
        model: a built `keras.Sequential`; one inside another is read through. Channels last.

    Returns:
        What `reference_probabilities` takes. Layers that do nothing at inference are left out.

    Raises:
        UnsupportedLayerError: a model that is no Sequential, a custom layer, one of a kind that is not
            known here, or a setting of it (dilation, groups, a custom activation, ...) that is not.
    """
    if not _is_keras(model, "Sequential"):
        raise UnsupportedLayerError(model.name, type(model).__name__, "expected a keras.Sequential model")
    found: list[Layer] = []
    for layer in model.layers:
        kind = type(layer).__name__
        if _is_keras(layer, "Sequential"):
            found.extend(read_keras_layers(layer))
        elif not _is_keras(layer, kind) or kind not in (*_READERS, *_IDENTITIES):
            raise UnsupportedLayerError(layer.name, kind, f"expected one of Keras' {', '.join(_READERS)}, Dropout")
        elif kind in _READERS:
            found.append(_READERS[kind](layer, layer.get_config()))
    return tuple(found)


def _is_keras(layer: Any, kind: str) -> bool:
    """Whether a layer is of Keras' own class of that name, not of somebody's subclass."""
    return type(layer).__name__ == kind and type(layer).__module__.partition(".")[0] == "keras"


def _read_convolution(layer: Any, config: Mapping[str, Any]) -> Layer:
    _expect(layer, config, data_format="channels_last", dilation_rate=(1, 1), groups=1)
    kernels, bias = _kernel_and_bias(layer, config, rank=4)
    return Convolution(
        name=layer.name,
        kernels=kernels,
        bias=bias,
        strides=_pair(config["strides"]),
        padding=_padding(layer, config),
        activation=_activation(layer, config["activation"]),
    )


def _read_dense(layer: Any, config: Mapping[str, Any]) -> Layer:
    kernel, bias = _kernel_and_bias(layer, config, rank=2)
    return Dense(name=layer.name, kernel=kernel, bias=bias, activation=_activation(layer, config["activation"]))


def _read_pooling(layer: Any, config: Mapping[str, Any]) -> Layer:
    _expect(layer, config, data_format="channels_last")
    pooling = MaxPooling if type(layer).__name__ == "MaxPooling2D" else MeanPooling
    return pooling(
        name=layer.name,
        size=_pair(config["pool_size"]),
        strides=_pair(config["strides"]),
        padding=_padding(layer, config),
    )


def _read_global_pooling(layer: Any, config: Mapping[str, Any]) -> Layer:
    _expect(layer, config, data_format="channels_last", keepdims=False)
    return GlobalMeanPooling(layer.name)


def _read_flatten(layer: Any, config: Mapping[str, Any]) -> Layer:
    _expect(layer, config, data_format="channels_last")
    return Flatten(layer.name)


def _read_normalization(layer: Any, config: Mapping[str, Any]) -> Layer:
    _expect(layer, config, axis=-1)
    names = [*(["gamma"] if config["scale"] else []), *(["beta"] if config["center"] else []), "mean", "variance"]
    arrays = dict(zip(names, _float_arrays(layer, count=len(names), rank=1), strict=True))
    channels = len(arrays["mean"])
    plain = {"gamma": np.ones(channels), "beta": np.zeros(channels)}  # what the layer does without them
    return Normalization(name=layer.name, **plain | arrays, epsilon=float(config["epsilon"]))


def _read_activation(layer: Any, config: Mapping[str, Any]) -> Layer:
    return Activation(layer.name, _activation(layer, config["activation"]))


def _read_relu(layer: Any, config: Mapping[str, Any]) -> Layer:
    _expect(layer, config, max_value=None, negative_slope=0.0, threshold=0.0)
    return Activation(layer.name, "relu")


def _read_softmax(layer: Any, config: Mapping[str, Any]) -> Layer:
    _expect(layer, config, axis=-1)
    return Activation(layer.name, "softmax")


_READERS: Mapping[str, Callable[[Any, Mapping[str, Any]], Layer]] = {
    "Conv2D": _read_convolution,
    "Dense": _read_dense,
    "MaxPooling2D": _read_pooling,
    "AveragePooling2D": _read_pooling,
    "GlobalAveragePooling2D": _read_global_pooling,
    "Flatten": _read_flatten,
    "BatchNormalization": _read_normalization,
    "Activation": _read_activation,
    "ReLU": _read_relu,
    "Softmax": _read_softmax,
}


def _kernel_and_bias(layer: Any, config: Mapping[str, Any], *, rank: int) -> tuple[Float64Array, Float64Array | None]:
    kernel, *bias = _float_arrays(layer, count=2 if config["use_bias"] else 1, rank=rank)
    return kernel, bias[0] if bias else None


def _float_arrays(layer: Any, *, count: int, rank: int) -> list[Float64Array]:
    """Quantized and low-rank-adapted layers hold other arrays: they fail the count or the dtype."""
    arrays = layer.get_weights()
    if len(arrays) != count or arrays[0].ndim != rank or any(not _is_float(array) for array in arrays):
        found = [f"{array.shape} {array.dtype}" for array in arrays]
        raise _unsupported(layer, f"expected {count} floating-point weights, the first of rank {rank}; came {found}")
    return [np.asarray(array, dtype=np.float64) for array in arrays]


def _is_float(array: Any) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))


def _expect(layer: Any, config: Mapping[str, Any], **settings: object) -> None:
    for name, expected in settings.items():
        actual = config.get(name, expected)
        if (tuple(actual) if isinstance(actual, list) else actual) != expected:
            raise _unsupported(layer, f"expected {name}={expected!r}; came {actual!r}")


def _activation(layer: Any, activation: object) -> ActivationName:
    if activation not in _ACTIVATIONS:
        raise _unsupported(layer, f"expected an activation of {', '.join(_ACTIVATIONS)}; came {activation!r}")
    return cast("ActivationName", activation)


def _padding(layer: Any, config: Mapping[str, Any]) -> LayerPadding:
    if config["padding"] not in ("same", "valid"):
        raise _unsupported(layer, f"expected padding 'same' or 'valid'; came {config['padding']!r}")
    return cast("LayerPadding", config["padding"])


def _pair(values: int | tuple[int, int]) -> tuple[int, int]:
    rows, columns = (values, values) if isinstance(values, int) else values
    return rows, columns


def _unsupported(layer: Any, reason: str) -> UnsupportedLayerError:
    return UnsupportedLayerError(layer.name, type(layer).__name__, reason)
