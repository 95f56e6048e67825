"""`inferry-train list`: what a repository holds."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from inferry_trainer.commands import say

if TYPE_CHECKING:
    from inferry_trainer.commands import Commands


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Put the command's flags into the parser."""
    listing = commands.add_parser(
        "list",
        parents=[common],
        help="list what is published",
        description="List the versions in a repository with their labels, accuracy, size and latency.",
    )
    listing.add_argument("path", type=Path, metavar="REPOSITORY", help="a repository, or one of its models")
    listing.set_defaults(do=_list)


def _list(chosen: argparse.Namespace) -> None:
    from inferry_trainer.workflow.list_versions import list_path

    list_path(chosen.path, say=say)
