"""`inferry-train`: train a model, export it with proof, publish it."""

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from inferry_trainer.config import RECIPES, recipe_config
from inferry_trainer.datasets import NAMES
from inferry_trainer.errors import TrainerError
from inferry_trainer.quiet import import_tensorflow_quietly

_PROGRAM = "inferry-train"
_NEEDED = {"tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "sklearn"}
_INTERRUPTED = 130  # as shells report it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status: 0 done, 1 refused, 2 called wrongly, 130 interrupted."""
    chosen = build_parser().parse_args(arguments)
    try:
        if chosen.command == "run":
            _run(chosen)
        else:
            _export(chosen)
    except KeyboardInterrupt:
        _complain("interrupted; nothing was saved or published")
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last place where one can become a line
        if chosen.verbose:
            traceback.print_exc()
        _complain(_explain(error))
        return 1
    return 0


def _run(chosen: argparse.Namespace) -> None:
    config = recipe_config(chosen.dataset, chosen.recipe, epochs=chosen.epochs, seed=chosen.seed)
    import_tensorflow_quietly(verbose=chosen.verbose)
    from inferry_trainer.workflow import train_run  # brings TensorFlow: not for --help

    train_run(config, out=chosen.out, data_dir=chosen.data_dir, overwrite=chosen.overwrite, say=_say)


def _export(chosen: argparse.Namespace) -> None:
    import_tensorflow_quietly(verbose=chosen.verbose)
    from inferry_trainer.workflow import export_run  # brings TensorFlow: not for --help

    export_run(chosen.run, repository=chosen.repository, model_name=chosen.model, say=_say)


class _Parser(argparse.ArgumentParser):
    """Complains in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        _complain(f"{message} (see {self.prog} --help)")
        raise SystemExit(2)


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=_PROGRAM, description="Train Keras CNNs, export them to ONNX with proof, publish them.")
    parser.add_argument("--verbose", action="store_true", help="show where an error came from")
    common = _Parser(add_help=False)
    common.add_argument(
        "--verbose", action="store_true", default=argparse.SUPPRESS, help="show where an error came from"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

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

    export = commands.add_parser(
        "export",
        parents=[common],
        help="export a run to ONNX, verify and publish it",
        description="Export a run's model to ONNX, prove that nothing changed, publish it as the next version.",
    )
    export.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    export.add_argument("--repository", type=Path, required=True, metavar="DIR", help="the model repository")
    export.add_argument("--model", metavar="NAME", help="the model's name there (default: the data set's)")
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


def _complain(line: str) -> None:
    print(f"{_PROGRAM}: error: {line}", file=sys.stderr, flush=True)


def _explain(error: Exception) -> str:
    if isinstance(error, TrainerError):
        return _one_line(error)
    if isinstance(error, ModuleNotFoundError) and error.name in _NEEDED:
        return f"{error.name} is not installed; install the trainer: pip install 'inferry[train]'"
    return f"{type(error).__name__}: {_one_line(error)} (--verbose shows where)"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
