"""`make deploy-check ARGS=FOLDER`: check an overlay of your own."""

import sys
from pathlib import Path

from manifests.bundle import render
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
        problems = faults(bundle, server_facts(sorted(asked_paths(bundle))))
        found += len(problems)
        for problem in problems:
            print(f"{folder}: {problem}")
        if not problems:
            print(f"{folder}: {len(bundle.objects)} objects, nothing wrong")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
