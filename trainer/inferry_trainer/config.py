"""What a run is a function of: a data set, a recipe and a seed."""

from dataclasses import dataclass, replace

from inferry_trainer.errors import ConfigError

_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 10_000),
    "batch_size": (1, 65_536),
    "learning_rate": (1e-8, 10.0),
    "validation_images": (1, 10_000_000),
    "seed": (0, 2**32 - 1),  # what NumPy's generators take
}


@dataclass(frozen=True)
class RunConfig:
    """The settings of a run; every default is the chapter's for MNIST.

    Attributes:
        dataset: as on the command line.
        recipe: where the other settings come from.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: Adam's; 0.001 is its default.
        validation_images: held out of the training images.
        seed: of the split, the first weights, dropout and the order of the images.

    Raises:
        ConfigError: a setting is outside its range.
    """

    dataset: str
    recipe: str = "chapter"
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.001
    validation_images: int = 10_000
    seed: int = 1

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:  # false for NaN too
                raise ConfigError(f"{name} is {value}; expected {least} to {most}")


RECIPES: dict[str, dict[str, RunConfig]] = {
    "chapter": {
        # The chapter's network on a data set 35 times smaller: small batches give it the steps it needs.
        "digits": RunConfig("digits", epochs=12, batch_size=32, validation_images=180),
        "mnist": RunConfig("mnist"),
        "fashion-mnist": RunConfig("fashion-mnist"),
    },
}


def recipe_config(dataset: str, recipe: str, *, epochs: int | None = None, seed: int | None = None) -> RunConfig:
    """A recipe's settings for a data set, with what the user chose instead.

    Raises:
        ConfigError: no such recipe, or none for this data set, or a setting outside its range.
    """
    if recipe not in RECIPES:
        raise ConfigError(f"there is no recipe {recipe!r}; expected one of {', '.join(RECIPES)}")
    if dataset not in RECIPES[recipe]:
        raise ConfigError(f"recipe {recipe!r} has no data set {dataset!r}; it has {', '.join(RECIPES[recipe])}")
    chosen = {name: value for name, value in (("epochs", epochs), ("seed", seed)) if value is not None}
    return replace(RECIPES[recipe][dataset], **chosen)  # type: ignore[arg-type]  # both are integers
