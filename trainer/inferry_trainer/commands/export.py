"""`inferry-train export`: convert a run's model, prove it, publish it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from inferry_trainer.commands import say
from inferry_trainer.quiet import import_tensorflow_quietly

if TYPE_CHECKING:
    from inferry_trainer.commands import Commands


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Put the command's flags into the parser."""
    export = commands.add_parser(
        "export",
        parents=[common],
        help="export a run to ONNX, verify and publish it",
        description="Export a run's model to ONNX, prove that nothing changed, publish it as the next version.",
    )
    export.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    export.add_argument("--repository", type=Path, required=True, metavar="DIR", help="the model repository")
    export.add_argument("--model", metavar="NAME", help="the model's name there (default: the data set's)")
    export.add_argument(
        "--precision",
        type=lambda text: tuple(text.split(",")),
        default=("float32",),
        metavar="LIST",
        help="float32, float16, int8: each published as a model of its own, NAME-int8 (default: float32)",
    )
    export.add_argument(
        "--max-accuracy-drop",
        type=float,
        default=0.1,
        metavar="POINTS",
        help="percentage points of test accuracy that reduced precision may cost (default: %(default)s)",
    )
    export.add_argument("--label", metavar="LABEL", help="point this label, canary say, at what is published")
    export.set_defaults(do=_export)


def _export(chosen: argparse.Namespace) -> None:
    import_tensorflow_quietly(verbose=chosen.verbose)
    from inferry_trainer.workflow.export import ExportOptions, export_run  # brings TensorFlow: not for --help

    options = ExportOptions(
        repository=chosen.repository,
        model_name=chosen.model,
        precisions=chosen.precision,
        max_accuracy_drop=chosen.max_accuracy_drop,
        label=chosen.label,
    )
    export_run(chosen.run, options, say=say)
