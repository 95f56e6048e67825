"""What a run is a function of: a data set, a recipe and a seed."""

from dataclasses import dataclass, field, replace
from typing import Any

from inferry_trainer.errors import ConfigError

NETWORKS = ("mnist-cnn", "celeba-cnn", "all-conv", "deep-cnn")
SCHEDULES = ("constant", "cosine")
CROPS = ("none", "random")

_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 10_000),
    "batch_size": (1, 65_536),
    "learning_rate": (1e-8, 10.0),
    "warmup_epochs": (0, 10_000),
    "weight_decay": (0, 1.0),
    "ema_decay": (0, 0.999_999),
    "patience": (0, 10_000),
    "train_images": (0, 10_000_000),
    "validation_images": (0, 10_000_000),
    "seed": (0, 2**32 - 1),  # what NumPy's generators take
}
_AUGMENTATION_RANGES: dict[str, tuple[float, float]] = {
    "rotation_degrees": (0, 180),
    "shear_degrees": (0, 60),
    "zoom": (0, 0.9),
    "shift": (0, 0.5),
    "elastic": (0, 0.5),
    "erase": (0, 1),
}
_OF_ONE_DATASET = {
    "attribute": "celeba",
    "train_images": "celeba",
    "color": "folder",
    "image_size": "folder",
    "skip_unreadable": "folder",
}


@dataclass(frozen=True)
class Augmentation:
    """What happens to training images, and to no others; the default is nothing.

    Attributes:
        flip: mirror every second image, left to right.
        crop: `random` takes a square as wide as the picture's shorter side from anywhere in it, where
            evaluation has the crop box of the preprocessing; data sets that are streamed from files only.
        rotation_degrees: turn by up to this angle either way.
        shear_degrees: slant by up to this angle either way.
        zoom: scale width and height, apart, by up to this share up or down.
        shift: move by up to this share of width and height.
        elastic: stretch unevenly, points moving by up to this share of width and height.
        erase: share of the images in which a rectangle becomes noise.

    Raises:
        ConfigError: a setting is outside its range.
    """

    flip: bool = False
    crop: str = "none"
    rotation_degrees: float = 0.0
    shear_degrees: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    elastic: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        _check_ranges(self, _AUGMENTATION_RANGES)
        _check_choice("crop", self.crop, CROPS)


@dataclass(frozen=True)
class RunConfig:
    """The settings of a run; every default is the chapter's for MNIST.

    Attributes:
        dataset: as on the command line.
        recipe: where the other settings come from.
        network: one of `NETWORKS`.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: the highest one; 0.001 is Adam's default.
        schedule: `constant`, or `cosine`: up in a line, then down to 0 along half a cosine.
        warmup_epochs: of the cosine's way up.
        weight_decay: decoupled from the gradient (AdamW), of kernels alone; 0 is Adam.
        ema_decay: the model is the exponential moving average of the weights, with this share kept each
            step; 0 takes the last weights.
        patience: stop after this many epochs without a lower validation loss, and take the epoch with the
            lowest; 0 trains to the end.
        augmentation: of the training images.
        attribute: of CelebA: what is learned.
        train_images: of CelebA: how many of its training images to use; 0 is all.
        validation_images: held out of the training images; of CelebA, how many of its own to use. 0 is all
            of CelebA's, a tenth of a folder's.
        color: of a folder: `grey`, `rgb`, or `auto`.
        image_size: of a folder: the side of what the model sees; 0 infers it.
        skip_unreadable: of a folder: leave out damaged pictures.
        mixed_precision: compute in float16 on a GPU; the weights stay float32.
        seed: of the split, the first weights, dropout, augmentation and the order of the images.

    Raises:
        ConfigError: a setting is outside its range.
    """

    dataset: str
    recipe: str = "chapter"
    network: str = "mnist-cnn"
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.001
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    weight_decay: float = 0.0
    ema_decay: float = 0.0
    patience: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    attribute: str = ""
    train_images: int = 0
    validation_images: int = 10_000
    color: str = "auto"
    image_size: int = 0
    skip_unreadable: bool = False
    mixed_precision: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        _check_ranges(self, _RANGES)
        _check_choice("network", self.network, NETWORKS)
        _check_choice("schedule", self.schedule, SCHEDULES)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "RunConfig":
        """What `dataclasses.asdict` gave; settings it does not name have their defaults.

        Raises:
            ConfigError: a setting outside its range.
            TypeError: a setting that does not exist.
        """
        augmentation = Augmentation(**content.get("augmentation", {}))
        return cls(**{**content, "augmentation": augmentation})


def _check_ranges(settings: object, ranges: dict[str, tuple[float, float]]) -> None:
    for name, (least, most) in ranges.items():
        value = getattr(settings, name)
        if not least <= value <= most:  # false for NaN too
            raise ConfigError(f"{name} is {value}; expected {least} to {most}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(choices)}")


# The chapter's network on data sets far smaller than its own: small batches give it the steps it needs.
_DIGITS = RunConfig("digits", epochs=12, batch_size=32, validation_images=180)
_CELEBA = RunConfig(
    "celeba",
    network="celeba-cnn",
    epochs=30,
    batch_size=32,
    augmentation=Augmentation(crop="random", flip=True),
    attribute="Male",
    train_images=16_000,
    validation_images=1_000,
)
_FOLDER = RunConfig("folder", network="celeba-cnn", epochs=30, batch_size=32, patience=5, validation_images=0)

# Chosen on the validation images, never on the test set.
_MNIST_BEST = RunConfig(
    "mnist",
    recipe="best",
    epochs=20,
    batch_size=128,
    learning_rate=0.002,
    schedule="cosine",
    warmup_epochs=1.0,
    weight_decay=0.02,
    ema_decay=0.998,
    augmentation=Augmentation(rotation_degrees=12, shear_degrees=12, zoom=0.15, shift=0.1, elastic=0.04),
    validation_images=5_000,
)
_FASHION_BEST = replace(
    _MNIST_BEST,
    dataset="fashion-mnist",
    network="deep-cnn",
    epochs=32,
    augmentation=Augmentation(flip=True, zoom=0.08, shift=0.07, erase=0.1),
)
_SCHEDULED: dict[str, Any] = {
    "recipe": "best",
    "schedule": "cosine",
    "warmup_epochs": 1.0,
    "weight_decay": 0.02,
    "ema_decay": 0.998,
}

RECIPES: dict[str, dict[str, RunConfig]] = {
    "chapter": {
        "digits": _DIGITS,
        "mnist": RunConfig("mnist"),
        "fashion-mnist": RunConfig("fashion-mnist"),
        "celeba": _CELEBA,
        "folder": _FOLDER,
    },
    "best": {
        # An average over fewer steps, where an epoch has fewer.
        "digits": replace(
            _MNIST_BEST, dataset="digits", epochs=30, batch_size=32, validation_images=180, ema_decay=0.99
        ),
        "mnist": _MNIST_BEST,
        "fashion-mnist": _FASHION_BEST,
        "celeba": replace(_CELEBA, **_SCHEDULED, train_images=0, validation_images=0),
        "folder": replace(
            _FOLDER,
            **_SCHEDULED | {"ema_decay": 0.99},
            patience=0,
            augmentation=Augmentation(rotation_degrees=10, zoom=0.1, shift=0.1),
        ),
    },
}


def recipe_config(dataset: str, recipe: str, **chosen: Any) -> RunConfig:
    """A recipe's settings for a data set, with what the user chose instead; None leaves the recipe's.

    Raises:
        ConfigError: no such recipe, or none for this data set, a setting outside its range, or one that
            this data set does not have.
    """
    if recipe not in RECIPES:
        raise ConfigError(f"there is no recipe {recipe!r}; expected one of {', '.join(RECIPES)}")
    if dataset not in RECIPES[recipe]:
        raise ConfigError(f"recipe {recipe!r} has no data set {dataset!r}; it has {', '.join(RECIPES[recipe])}")
    chosen = {name: value for name, value in chosen.items() if value is not None}
    for name, owner in _OF_ONE_DATASET.items():
        if name in chosen and dataset != owner:
            raise ConfigError(f"{name} is a setting of {owner}; {dataset} has none")
    return replace(RECIPES[recipe][dataset], **chosen)
