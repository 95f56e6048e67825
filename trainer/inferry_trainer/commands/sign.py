"""`inferry-train sign`: sign what is published already, and labels or settings that have changed."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from inferry_trainer.commands import say

if TYPE_CHECKING:
    from inferry_trainer.commands import Commands


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Put the command's flags into the parser."""
    signing = commands.add_parser(
        "sign",
        parents=[common],
        help="sign published models, for servers with a model key",
        description="Sign a version, or all versions of a model or a repository, and the settings and labels of their "
        "models, in the format of OpenSSF Model Signing. Sign again after editing config.pbtxt or version_labels.json.",
    )
    signing.add_argument("path", type=Path, metavar="PATH", help="a version, a model or a repository")
    signing.add_argument("--key", type=Path, required=True, metavar="KEY", help="elliptic curve key (PEM)")
    signing.set_defaults(do=_sign)


def _sign(chosen: argparse.Namespace) -> None:
    from inferry_trainer.publishing.signatures import sign_path

    for version in sign_path(chosen.path, chosen.key):
        say(f"signed: {version}")
