import json
from dataclasses import asdict
from typing import Any

import pytest

from inferry_trainer.config import RECIPES, Augmentation, RunConfig, recipe_config
from inferry_trainer.datasets import NAMES
from inferry_trainer.errors import ConfigError


def test_the_chapters_recipe_for_mnist_is_the_chapters() -> None:
    config = recipe_config("mnist", "chapter")
    assert (config.batch_size, config.epochs, config.learning_rate, config.validation_images) == (64, 20, 0.001, 10_000)


def test_every_data_set_has_a_recipe() -> None:
    for recipe, configs in RECIPES.items():
        assert set(configs) == set(NAMES)
        assert all(config.dataset == name for name, config in configs.items())
        assert all(config.recipe == recipe for config in configs.values())


def test_what_the_user_chose_replaces_the_recipes_setting() -> None:
    config = recipe_config("digits", "chapter", epochs=3, seed=0)
    assert (config.epochs, config.seed) == (3, 0)
    assert config.batch_size == RECIPES["chapter"]["digits"].batch_size


def test_the_chapters_recipe_for_celeba_is_the_chapters() -> None:
    config = recipe_config("celeba", "chapter")
    assert (config.network, config.batch_size, config.epochs, config.learning_rate) == ("celeba-cnn", 32, 30, 0.001)
    assert (config.train_images, config.validation_images, config.attribute) == (16_000, 1_000, "Male")
    assert config.augmentation == Augmentation(crop="random", flip=True)


def test_a_setting_of_another_data_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="attribute is a setting of celeba; mnist has none"):
        recipe_config("mnist", "chapter", attribute="Smiling")
    assert recipe_config("celeba", "best", attribute="Smiling", epochs=None).attribute == "Smiling"


@pytest.mark.parametrize(
    "wrong",
    [{"zoom": 1.0}, {"erase": -0.1}, {"crop": "centre"}, {"rotation_degrees": float("nan")}],
)
def test_an_augmentation_outside_its_range_is_refused(wrong: dict[str, Any]) -> None:
    [name] = wrong
    with pytest.raises(ConfigError, match=f"{name} is .*; expected"):
        Augmentation(**wrong)


def test_a_config_reads_back_from_json_and_older_ones_have_the_defaults() -> None:
    config = recipe_config("fashion-mnist", "best")
    assert RunConfig.from_json(json.loads(json.dumps(asdict(config)))) == config
    assert RunConfig.from_json({"dataset": "mnist", "epochs": 3}) == RunConfig("mnist", epochs=3)


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("epochs", 0, "1 to 10000"),
        ("batch_size", 0, "1 to 65536"),
        ("learning_rate", float("nan"), "1e-08 to 10.0"),
        ("seed", -1, "0 to 4294967295"),
        ("seed", 2**32, "0 to "),
    ],
)
def test_a_setting_outside_its_range_is_named_with_the_range(setting: str, value: float, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} is .*; expected {expected}"):
        RunConfig("digits", **{setting: value})  # type: ignore[arg-type]


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no recipe 'great'; expected one of chapter, best"):
        recipe_config("mnist", "great")
    with pytest.raises(ConfigError, match="no data set 'cifar'; it has digits, mnist, fashion-mnist"):
        recipe_config("cifar", "chapter")
