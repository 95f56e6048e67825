"""`inferry-train diff`: two published versions side by side."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from inferry_trainer.commands import say
from inferry_trainer.commands.verify import add_evidence
from inferry_trainer.quiet import import_tensorflow_quietly

if TYPE_CHECKING:
    from inferry_trainer.commands import Commands


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Put the command's flags into the parser."""
    diff = commands.add_parser(
        "diff",
        parents=[common],
        help="compare two published versions",
        description="Compare two versions on the same images: accuracy, agreement, size, speed, disagreements.",
    )
    diff.add_argument("first", type=Path, metavar="A", help="a version's folder")
    diff.add_argument("second", type=Path, metavar="B", help="another's")
    add_evidence(diff)
    diff.add_argument("--out", type=Path, metavar="DIR", help="keep the pictures on which they disagree there")
    diff.set_defaults(do=_diff)


def _diff(chosen: argparse.Namespace) -> None:
    import_tensorflow_quietly(verbose=chosen.verbose)
    from inferry_trainer.publishing.evidence import EvidenceOptions  # brings TensorFlow: not for --help
    from inferry_trainer.workflow.diff import diff_versions

    options = EvidenceOptions(run=chosen.run, data=chosen.data, data_dir=chosen.data_dir)
    diff_versions(chosen.first, chosen.second, options, pictures=chosen.out, say=say)
