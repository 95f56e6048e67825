"""`inferry-train show-augmentation`: a picture of what becomes of training images."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from inferry_trainer.commands import say
from inferry_trainer.config import RECIPES, recipe_config
from inferry_trainer.datasets import NAMES
from inferry_trainer.quiet import import_tensorflow_quietly

if TYPE_CHECKING:
    from inferry_trainer.commands import Commands


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Put the command's flags into the parser."""
    show = commands.add_parser(
        "show-augmentation",
        parents=[common],
        help="draw what augmentation does to training images",
        description="Draw training images beside what the chapter's transformations and a recipe make of them.",
    )
    show.add_argument("dataset", choices=NAMES, metavar="DATASET", help=" | ".join(NAMES))
    show.add_argument("--out", type=Path, required=True, metavar="PICTURE", help="the picture to write, a .png say")
    show.add_argument("--data-dir", type=Path, metavar="DIR", help="where the data set's files are, as for `run`")
    show.add_argument(
        "--recipe", choices=tuple(RECIPES), default="best", help="whose augmentation (default: %(default)s)"
    )
    show.add_argument("--images", type=int, default=5, metavar="N", help="how many rows (default: %(default)s)")
    show.add_argument("--seed", type=int, metavar="S", help="chooses images and changes")
    show.set_defaults(do=_show)


def _show(chosen: argparse.Namespace) -> None:
    config = recipe_config(chosen.dataset, chosen.recipe, seed=chosen.seed)
    import_tensorflow_quietly(verbose=chosen.verbose)
    from inferry_trainer.workflow.show_augmentation import show_augmentation  # brings TensorFlow: not for --help

    show_augmentation(config, out=chosen.out, data_dir=chosen.data_dir, images=chosen.images, say=say)
