"""Rules of the other programs: clients and trainer know their arguments, and find the folders that these name."""

import argparse
import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

from obstore import parse_scheme
from obstore.exceptions import BaseError

from inferry_client.cli import build_parser as client_parser
from inferry_trainer.cli import build_parser as trainer_parser
from manifests.bundle import Bundle, Manifest, Template, image_name

PARSERS: dict[str, Any] = {"inferry-clients": client_parser, "inferry-trainer": trainer_parser}
_FOLDER = re.compile(r"(?:^|=)(/[\w-]+)")
_SYNC = "sync.command"


def program_faults(bundle: Bundle) -> Iterator[str]:
    """Arguments that a program refuses or that do harm, stores that are none, and folders where nothing is mounted."""
    for template in bundle.templates():
        copied: dict[str, str] = {}
        for container, arguments in _programs(template):
            name = f"{template.owner}, container {container['name']}"
            try:
                chosen = _parsed(PARSERS[image_name(container)](), arguments)
            except ValueError as error:
                yield f"{name}: {error}"
                continue
            for fault in (*_label_faults(chosen), *_sync_faults(chosen, copied), *_mount_faults(container, arguments)):
                yield f"{name}: {fault}"


def _programs(template: Template) -> Iterator[tuple[Manifest, list[str]]]:
    """The containers of Inferry's other programs, with their arguments."""
    for container in template.containers:
        if image_name(container) in PARSERS and "command" not in container:
            yield container, [str(one) for one in container.get("args", [])]


def _parsed(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """What a program understands.

    Raises:
        ValueError: nothing; with its last words.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return parser.parse_args(arguments)
    except SystemExit:
        raise ValueError((said.getvalue().strip().splitlines() or ["no arguments"])[-1]) from None


def _label_faults(chosen: argparse.Namespace) -> Iterator[str]:
    label = getattr(chosen, "label", None)
    if label not in (None, "stable") and not chosen.keep_traffic:
        yield (
            f"--label={label} without --keep-traffic: where the model has no traffic, what is published gets every "
            "request that names no version"
        )


def _sync_faults(chosen: argparse.Namespace, copied: dict[str, str]) -> Iterator[str]:
    """Sources that `inferry sync` cannot open, and two for one folder.

    Args:
        chosen: of one container.
        copied: folder to source, of the containers of the same pod before it; the container's own is added.
    """
    if getattr(chosen, "module", None) != _SYNC:
        return
    try:
        parse_scheme(chosen.url)
    except (BaseError, ValueError):
        yield f"{chosen.url} is the address of no store; expected s3://BUCKET/PATH, gs://, az:// or https://"
    first = copied.setdefault(chosen.folder, chosen.url)
    if first != chosen.url:
        yield f"it copies {chosen.url} to {chosen.folder}, and another container copies {first}; expected one source"


def _mount_faults(container: Manifest, arguments: Sequence[str]) -> Iterator[str]:
    mounts = {mount["mountPath"] for mount in container.get("volumeMounts", [])}
    for argument in arguments:
        match = _FOLDER.search(argument)
        if match is not None and match[1] not in mounts:
            yield f"{argument} names {match[1]}, and nothing is mounted there"
