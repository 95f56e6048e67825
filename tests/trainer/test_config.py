import pytest

from inferry_trainer.config import RECIPES, RunConfig, recipe_config
from inferry_trainer.datasets import NAMES
from inferry_trainer.errors import ConfigError


def test_the_chapters_recipe_for_mnist_is_the_chapters() -> None:
    config = recipe_config("mnist", "chapter")
    assert (config.batch_size, config.epochs, config.learning_rate, config.validation_images) == (64, 20, 0.001, 10_000)


def test_every_data_set_has_a_recipe() -> None:
    assert set(RECIPES["chapter"]) == set(NAMES)
    assert all(config.dataset == name for name, config in RECIPES["chapter"].items())


def test_what_the_user_chose_replaces_the_recipes_setting() -> None:
    config = recipe_config("digits", "chapter", epochs=3, seed=0)
    assert (config.epochs, config.seed) == (3, 0)
    assert config.batch_size == RECIPES["chapter"]["digits"].batch_size


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
    with pytest.raises(ConfigError, match="no data set 'celeba'; it has digits, mnist, fashion-mnist"):
        recipe_config("celeba", "chapter")
