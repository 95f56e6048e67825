"""`inferry-train verify`: repeat on something published what it had to pass."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from inferry_trainer.commands import say
from inferry_trainer.quiet import import_tensorflow_quietly

if TYPE_CHECKING:
    from inferry_trainer.commands import Commands


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Put the command's flags into the parser."""
    verify = commands.add_parser(
        "verify",
        parents=[common],
        help="repeat every gate on something published",
        description="Repeat every gate on a version, a model or a whole repository; status 1 where one refuses.",
    )
    verify.add_argument("path", type=Path, metavar="PATH", help="a version, a model or a repository")
    add_evidence(verify)
    verify.add_argument("--keras", type=Path, metavar="FILE", help="the Keras model it was exported from")
    verify.add_argument(
        "--scaled-jpeg",
        type=Path,
        metavar="FOLDER",
        help="labelled pictures, as for export: repeats what decoding large JPEGs smaller costs, where that is done",
    )
    verify.add_argument(
        "--model-key", type=Path, metavar="KEY", help="public key (PEM) that all of it must be signed with"
    )
    verify.set_defaults(do=_verify)


def add_evidence(command: argparse.ArgumentParser) -> None:
    """Put the flags that name test images into a command's parser."""
    command.add_argument("--run", type=Path, metavar="RUN", help="the run it came from: Keras model and test images")
    command.add_argument("--data", type=Path, metavar="FOLDER", help="test images: a folder of pictures a label")
    command.add_argument("--data-dir", type=Path, metavar="DIR", help="where the data set's files are")


def _verify(chosen: argparse.Namespace) -> None:
    import_tensorflow_quietly(verbose=chosen.verbose)
    from inferry_trainer.publishing.evidence import EvidenceOptions  # brings TensorFlow: not for --help
    from inferry_trainer.workflow.verify import verify_path

    options = EvidenceOptions(
        keras=chosen.keras,
        run=chosen.run,
        data=chosen.data,
        data_dir=chosen.data_dir,
        scaled_jpeg=chosen.scaled_jpeg,
    )
    verify_path(chosen.path, options, model_key=chosen.model_key, say=say)
