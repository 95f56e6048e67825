"""`make deploy-check ARGS=FOLDER`: check overlays before they are applied; several of them as one.

    make deploy-check ARGS=deploy/k8s/overlays/cpu
    make deploy-check ARGS="deploy/k8s/overlays/cpu deploy/k8s/overlays/canary deploy/k8s/jobs/classify"

What is named and is not among the objects may be in the cluster already: it is listed, and is no fault.
"""

import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import yaml

from manifests.bundle import Bundle, image_name, parse, render
from manifests.check import asked_paths, examine
from manifests.facts import ServerFacts, server_facts
from manifests.layers import override_faults
from manifests.rules_server import servers
from manifests.schemas import VERSIONS, unknown_kinds
from manifests.together import together


def main(folders: Sequence[str]) -> int:
    """Check what the folders render, or files hold, together. Returns 1 if something is wrong."""
    where = " + ".join(folders)
    try:
        bundles = [_objects(Path(folder)) for folder in folders]
        wrong = [fault for folder in folders if Path(folder).is_dir() for fault in override_faults(Path(folder))]
    except (ValueError, OSError, yaml.YAMLError) as error:
        print(f"deploy-check: {error}")
        return 1
    bundle, differing = together(bundles)
    for kind in unknown_kinds(bundle, VERSIONS[-1]):
        print(f"{where}: not checked: {kind}")
    found = examine(bundle, _facts(tuple(sorted(asked_paths(bundle)))))
    wrong += [*differing, *found.wrong]
    if not found.broken:
        for note in (*_notes(bundle), *(need.note(bundle) for need in found.needs)):
            print(f"{where}: note: {note}")
    for fault in wrong:
        print(f"{where}: {fault}")
    if not wrong:
        print(f"{where}: {len(bundle.objects)} objects, nothing wrong")
    return 1 if wrong else 0


@cache  # a server is started for it
def _facts(paths: tuple[str, ...]) -> ServerFacts:
    return server_facts(paths)


def _objects(path: Path) -> Bundle:
    return parse(path.read_text()) if path.is_file() else render(path)


def _notes(bundle: Bundle) -> Iterator[str]:
    for image in local_images(bundle):
        yield f"{image} names no registry: every node must have it (kind load docker-image)"
    for server in servers(bundle):
        if server.settings.access_policy is not None and server.settings.tls_certificate is None:
            yield f"{server.template.owner}: tokens travel in the clear: whoever reads along has them (component `tls`)"


def local_images(bundle: Bundle) -> list[str]:
    """Images of our own that nodes would ask Docker Hub for, where they are not."""
    images = {one["image"] for template in bundle.templates() for one in template.containers if "image" in one}
    return sorted(one for one in images if "/" not in one and image_name({"image": one}).startswith("inferry-"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
