"""`inferry-train run`: train and evaluate a model."""

import argparse
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from inferry_trainer.commands import say
from inferry_trainer.config import NETWORKS, RECIPES, recipe_config
from inferry_trainer.datasets import NAMES
from inferry_trainer.datasets.folder import COLORS
from inferry_trainer.quiet import import_tensorflow_quietly

if TYPE_CHECKING:
    from inferry_trainer.commands import Commands

# Flags by the setting of `RunConfig` that they replace; left out, the recipe's holds.
_SETTINGS = (
    "network",
    "epochs",
    "batch_size",
    "learning_rate",
    "patience",
    "attribute",
    "train_images",
    "validation_images",
    "color",
    "image_size",
    "skip_unreadable",
    "mixed_precision",
    "seed",
)


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
        help="where the data set's files are; else $INFERRY_DATA, the cache, a download. Of `folder`: a folder a class",
    )
    run.add_argument(
        "--recipe",
        choices=tuple(RECIPES),
        default="chapter",
        help="where the settings come from (default: %(default)s)",
    )
    again = run.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with the interrupted run in the run folder")
    again.add_argument("--overwrite", action="store_true", help="replace what the run folder holds")
    run.add_argument("--open", action="store_true", help="show the report in a browser")
    _add_settings(run)
    run.set_defaults(do=_run)


def _add_settings(run: argparse.ArgumentParser) -> None:
    settings = run.add_argument_group("settings", "In place of the recipe's.")
    settings.add_argument("--epochs", type=int, metavar="N", help="passes over the training images")
    settings.add_argument("--seed", type=int, metavar="S", help="of split, first weights, order and augmentation")
    settings.add_argument("--network", choices=NETWORKS, metavar="NAME", help=" | ".join(NETWORKS))
    settings.add_argument("--batch-size", type=int, metavar="N", help="images a step")
    settings.add_argument("--learning-rate", type=float, metavar="R", help="the highest one")
    settings.add_argument("--patience", type=int, metavar="N", help="stop N epochs after the lowest validation loss")
    settings.add_argument("--validation-images", type=int, metavar="N", help="held out of the training images")
    settings.add_argument(
        "--mixed-precision", action="store_true", default=None, help="compute in float16; on a GPU only"
    )
    celeba = run.add_argument_group("settings of celeba")
    celeba.add_argument("--attribute", metavar="NAME", help="what to learn: Male, Smiling, Eyeglasses, ...")
    celeba.add_argument("--train-images", type=int, metavar="N", help="how many to use; 0 is all")
    folder = run.add_argument_group("settings of folder")
    folder.add_argument("--color", choices=COLORS, help="auto: grey where every picture is")
    folder.add_argument("--image-size", type=int, metavar="N", help="side in pixels of what the model sees")
    folder.add_argument("--skip-unreadable", action="store_true", default=None, help="leave out damaged pictures")


def _run(chosen: argparse.Namespace) -> None:
    settings = {name: getattr(chosen, name) for name in _SETTINGS}
    config = recipe_config(chosen.dataset, chosen.recipe, **settings)
    import_tensorflow_quietly(verbose=chosen.verbose)
    from inferry_trainer.workflow.run import train_run  # brings TensorFlow: not for --help

    train_run(
        config,
        out=chosen.out,
        data_dir=chosen.data_dir,
        overwrite=chosen.overwrite,
        resume=chosen.resume,
        say=say,
    )
    if chosen.open:
        webbrowser.open((chosen.out / "report.html").resolve().as_uri())
