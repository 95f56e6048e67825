"""`inferry-train publish`: a repository as an OCI image."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from inferry_trainer.commands import say

if TYPE_CHECKING:
    from inferry_trainer.commands import Commands


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Put the command's flags into the parser."""
    publishing = commands.add_parser(
        "publish",
        parents=[common],
        help="pack a repository as an OCI image, for image volumes",
        description="Pack a repository, or one of its models, into an OCI image layout. The digest says what is in it: "
        "the same models give the same digest on every machine. Push it with skopeo: "
        "skopeo copy --all oci:FOLDER:TAG docker://REGISTRY/NAME:TAG",
    )
    publishing.add_argument("path", type=Path, metavar="REPOSITORY", help="a repository, or one of its models")
    publishing.add_argument("--oci", type=Path, metavar="FOLDER", required=True, help="the layout; images in it stay")
    publishing.add_argument("--tag", required=True, metavar="TAG", help="the image's, which is never moved")
    publishing.set_defaults(do=_publish)


def _publish(chosen: argparse.Namespace) -> None:
    from inferry_trainer.publishing.oci import publish_image

    say(f"{chosen.oci}:{chosen.tag} is {publish_image(chosen.path, chosen.oci, chosen.tag)}")
