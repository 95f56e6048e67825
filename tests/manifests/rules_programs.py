"""Rules of the other programs: clients and trainer know their arguments, and find the folders that these name."""

import contextlib
import io
import re
from collections.abc import Iterator
from typing import Any

from inferry_client.cli import build_parser as client_parser
from inferry_trainer.cli import build_parser as trainer_parser
from manifests.bundle import Bundle, image_name

PARSERS: dict[str, Any] = {"inferry-clients": client_parser, "inferry-trainer": trainer_parser}
_FOLDER = re.compile(r"(?:^|=)(/[\w-]+)")


def program_faults(bundle: Bundle) -> Iterator[str]:
    """Arguments that a program refuses, canaries that take all traffic, and folders where nothing is mounted."""
    for template in bundle.templates():
        for container in template.containers:
            name = f"{template.owner}, container {container['name']}"
            parser = PARSERS.get(image_name(container))
            if parser is None or "command" in container:
                continue
            arguments = [str(one) for one in container.get("args", [])]
            said = io.StringIO()
            try:
                with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                    chosen = parser().parse_args(arguments)
            except SystemExit:
                yield f"{name}: {(said.getvalue().strip().splitlines() or ['no arguments'])[-1]}"
                continue
            label = getattr(chosen, "label", None)
            if label not in (None, "stable") and not chosen.keep_traffic:
                yield (
                    f"{name}: --label={label} without --keep-traffic: where the model has no traffic, what is "
                    "published gets every request that names no version"
                )
            mounts = {mount["mountPath"] for mount in container.get("volumeMounts", [])}
            for argument in arguments:
                match = _FOLDER.search(argument)
                if match is not None and match[1] not in mounts:
                    yield f"{name}: {argument} names {match[1]}, and nothing is mounted there"
