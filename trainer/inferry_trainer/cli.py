"""`inferry-train`: train a model, export it with proof, publish it."""

import argparse
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from inferry_proto.extras import how_to_install
from inferry_trainer.commands import diff, export, list_versions, publish, run, show_augmentation, sign, verify
from inferry_trainer.commands.export import PIXELS
from inferry_trainer.errors import TrainerError

_PROGRAM = "inferry-train"
_NEEDED = {"tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "sklearn"}
_SIGNED = tuple(value for value in PIXELS if value.startswith("-"))
_INTERRUPTED = 130  # as shells report it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status: 0 done, 1 refused, 2 called wrongly, 130 interrupted."""
    chosen = build_parser().parse_args(_join_signed(sys.argv[1:] if arguments is None else arguments))
    try:
        chosen.do(chosen)
    except KeyboardInterrupt:
        _complain("interrupted; nothing was published; a training goes on from its last whole epoch with --resume")
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last place where one can become a line
        if chosen.verbose:
            traceback.print_exc()
        _complain(_explain(error))
        return 1
    return 0


def _join_signed(arguments: Sequence[str]) -> list[str]:
    """`--pixels -1-1` as `--pixels=-1-1`: argparse takes a value that begins with a hyphen for a flag."""
    joined: list[str] = []
    for argument in arguments:
        if argument in _SIGNED and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


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

    for command in (run, show_augmentation, export, verify, list_versions, diff, publish, sign):
        command.add(commands, common)
    return parser


def _complain(line: str) -> None:
    print(f"{_PROGRAM}: error: {line}", file=sys.stderr, flush=True)


def _explain(error: Exception) -> str:
    if isinstance(error, TrainerError):
        return _one_line(error)
    if isinstance(error, ModuleNotFoundError) and error.name in _NEEDED:
        return f"{error.name} is not installed; install the trainer: {how_to_install('train')}"
    return f"{type(error).__name__}: {_one_line(error)} (--verbose shows where)"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
