"""What a Keras model takes, made to take pictures: `(N, H, W, C)`, whatever its author chose.

A model of open size gets the size that is asked for; one without channel axis, or with channels before rows, gets
a layer in front that turns pictures so; one that takes or gives a dict or list of one tensor is unpacked.
"""

from dataclasses import dataclass
from typing import Any

import keras
from keras.src.models import Functional

from inferry_trainer.errors import ConfigError, ExportError

_CHANNELS = (1, 3)
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class ImageSize:
    """Rows and columns of the pictures that a model of open size is to take."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


def parse_image_size(text: str) -> ImageSize:
    """`224`, or height and width as `160x120`.

    Raises:
        ConfigError: something else.
    """
    height, x, width = text.lower().partition("x")
    try:
        size = ImageSize(int(height), int(width if x else height))
    except ValueError:
        size = ImageSize(0, 0)
    if min(size.height, size.width) < 1:
        raise ConfigError(f"--image-size is {text!r}; expected a side, 224 say, or height and width, 160x120 say")
    return size


def take_pictures(model: Any, image_size: ImageSize | None = None) -> Any:
    """A model with one input `(N, H, W, C)` and one output; the same model where it is so already.

    Args:
        model: a Keras model.
        image_size: for axes that are open; None where there are none.

    Raises:
        ExportError: several inputs or outputs, no weights, or no pictures; says the way out.
    """
    pack, taken = _only_input(model)
    wanted = _picture_shape(model.name, taken, image_size)
    given = _only_output(model)
    if taken[1:] == wanted and pack is None and given is None and is_functional(model):
        return model
    images = keras.Input(wanted, dtype="float32")
    turned = _turn(images, taken, wanted)
    answers = model(turned if pack is None else pack(turned))
    return keras.Model(images, answers if given is None else answers[given], name=model.name)


def is_functional(model: Any) -> bool:
    """Whether a model knows its layers' connections; a class of its own, with a `call` written by hand, does not."""
    return isinstance(model, keras.Sequential | Functional)


def _only_input(model: Any) -> tuple[Any, Shape]:
    """How a tensor is packed for a model, None for not at all, and the tensor's shape."""
    shapes = _input_shapes(model)
    if isinstance(shapes, dict) and len(shapes) == 1:
        [(key, shape)] = shapes.items()
        return (lambda tensor: {key: tensor}), tuple(shape)
    if isinstance(shapes, list) and len(shapes) == 1:
        return (lambda tensor: [tensor]), tuple(shapes[0])
    if isinstance(shapes, dict | list) or any(isinstance(axis, tuple | list) for axis in shapes):
        raise ExportError(
            f"the model {model.name!r} takes {len(shapes)} inputs, {_described(shapes)}; a classifier takes "
            "one, of pictures: make a model of that one, with constants for the others, and save it"
        )
    return None, tuple(shapes)


def _input_shapes(model: Any) -> Any:
    """What a model says that it takes; a model that is a class of its own says with what it was built."""
    if is_functional(model) and model.built:
        taken = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
        return keras.tree.map_structure(lambda tensor: tensor.shape, taken)
    shape = (model.get_build_config() or {}).get("input_shape") if model.built else None
    if not shape:
        raise ExportError(
            f"the model {model.name!r} was saved before it was built, so that it has no weights, and nobody knows what "
            "it takes: call it on pictures, or fit it, in the program that has it, and save it again"
        )
    if isinstance(shape, list) and not any(isinstance(axis, list | tuple | dict) for axis in shape):
        return tuple(shape)  # a file knows no tuples
    return shape


def _only_output(model: Any) -> Any:
    """The key of a model's only output, None where it is not packed."""
    if not is_functional(model):
        return None
    given = model.outputs[0] if isinstance(model, keras.Sequential) else model.output
    if isinstance(given, dict | list | tuple):
        if len(given) == 1:
            return next(iter(given)) if isinstance(given, dict) else 0
        names = ", ".join(given) if isinstance(given, dict) else ", ".join(map(repr, range(len(given))))
        raise ExportError(
            f"the model {model.name!r} gives {len(given)} outputs ({names}); a classifier gives one: save "
            "keras.Model(model.input, model.output[...]) with the one that tells classes apart"
        )
    return None


def _picture_shape(name: str, taken: Shape, image_size: ImageSize | None) -> tuple[int, int, int]:
    """`(H, W, C)` of the pictures that become what a model takes."""
    if len(taken) == 3:
        height, width, channels = taken[1], taken[2], 1
    elif len(taken) == 4 and taken[3] in _CHANNELS:
        height, width, channels = taken[1], taken[2], taken[3]
    elif len(taken) == 4 and taken[1] in _CHANNELS:
        height, width, channels = taken[2], taken[3], taken[1]
    else:
        raise ExportError(
            f"the model {name!r} takes {taken}; expected pictures: (batch, height, width, 1 or 3), channels first, or "
            "(batch, height, width). Where it takes something else made of a picture, put that step into the model as "
            "its first layer (Reshape, Resizing, Rescaling, ...) and save it"
        )
    if (height is None or width is None) and image_size is None:
        raise ExportError(
            f"the model {name!r} takes pictures of any size, {taken}; say which it is to be served with: "
            "--image-size 224, or --image-size HEIGHTxWIDTH"
        )
    if image_size is not None and (height not in (None, image_size.height) or width not in (None, image_size.width)):
        raise ExportError(f"the model {name!r} takes {taken}; --image-size {image_size} is not possible: leave it out")
    size = image_size or ImageSize(height or 0, width or 0)
    return size.height, size.width, channels


def _turn(images: Any, taken: Shape, wanted: tuple[int, int, int]) -> Any:
    """Pictures `(N, H, W, C)` as a model wants them."""
    if len(taken) == 3:
        return keras.layers.Reshape(wanted[:2])(images)
    if taken[3] not in _CHANNELS:
        return keras.layers.Permute((3, 1, 2))(images)
    return images


def _described(shapes: Any) -> str:
    named = shapes.items() if isinstance(shapes, dict) else enumerate(shapes)
    return ", ".join(f"{name} {tuple(shape)}" for name, shape in named)
