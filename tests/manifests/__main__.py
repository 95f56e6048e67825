"""`make deploy-check ARGS=FOLDER`: check an overlay of your own."""

import sys
from pathlib import Path

from manifests.bundle import Bundle, image_name, render
from manifests.check import asked_paths, faults
from manifests.facts import server_facts
from manifests.schemas import VERSIONS, unknown_kinds


def main(folders: list[str]) -> int:
    found = 0
    for folder in folders:
        try:
            bundle = render(Path(folder))
        except ValueError as error:
            print(f"deploy-check: {error}")
            return 1
        for note in unknown_kinds(bundle, VERSIONS[-1]):
            print(f"{folder}: not checked: {note}")
        for image in local_images(bundle):
            print(f"{folder}: note: {image} names no registry: every node must have it (kind load docker-image)")
        problems = faults(bundle, server_facts(sorted(asked_paths(bundle))))
        found += len(problems)
        for problem in problems:
            print(f"{folder}: {problem}")
        if not problems:
            print(f"{folder}: {len(bundle.objects)} objects, nothing wrong")
    return 1 if found else 0


def local_images(bundle: Bundle) -> list[str]:
    """Images of our own that nodes would ask Docker Hub for, where they are not."""
    images = {one["image"] for template in bundle.templates() for one in template.containers if "image" in one}
    return sorted(one for one in images if "/" not in one and image_name({"image": one}).startswith("inferry-"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
