"""`inferry-train run`: train and evaluate a model."""

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
    run = commands.add_parser(
        "run",
        parents=[common],
        help="train and evaluate a model",
        description="Train and evaluate a model; leaves a run folder.",
    )
    run.add_argument("dataset", choices=NAMES, metavar="DATASET", help=" | ".join(NAMES))
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run folder to write")
    run.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="where the data set's files are; else $INFERRY_DATA, the cache, a download",
    )
    run.add_argument(
        "--recipe",
        choices=tuple(RECIPES),
        default="chapter",
        help="where the settings come from (default: %(default)s)",
    )
    run.add_argument("--epochs", type=int, metavar="N", help="passes over the training images (default: the recipe's)")
    run.add_argument("--seed", type=int, metavar="S", help="of split, first weights and order (default: the recipe's)")
    run.add_argument("--overwrite", action="store_true", help="replace the model that the run folder holds")
    run.set_defaults(do=_run)


def _run(chosen: argparse.Namespace) -> None:
    config = recipe_config(chosen.dataset, chosen.recipe, epochs=chosen.epochs, seed=chosen.seed)
    import_tensorflow_quietly(verbose=chosen.verbose)
    from inferry_trainer.workflow.run import train_run  # brings TensorFlow: not for --help

    train_run(config, out=chosen.out, data_dir=chosen.data_dir, overwrite=chosen.overwrite, say=say)
