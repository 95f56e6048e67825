"""`make deploy-check ARGS=...`: check overlays, or what the chart makes of your values, before they are applied.

    make deploy-check ARGS=deploy/k8s/overlays/cpu
    make deploy-check ARGS="deploy/k8s/overlays/cpu deploy/k8s/overlays/canary deploy/k8s/jobs/classify"
    make deploy-check ARGS="--values my.yaml --set image.tag=0.2.0 --release digits --namespace vision"

What is given is checked as one. What is named and is not among the objects may be in the cluster already: it is listed,
and is no fault.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import yaml

from chart.generate import CHART
from chart.helm import run_helm
from manifests.bundle import Bundle, image_name, parse, render
from manifests.check import asked_paths, examine
from manifests.facts import ServerFacts, server_facts
from manifests.layers import override_faults
from manifests.rules_found import unchecked
from manifests.rules_server import servers
from manifests.schemas import VERSIONS, unknown_kinds
from manifests.together import together

_HELMS_OWN = ("values", "set", "set-string", "set-json", "set-file")
_EXAMPLE = re.compile(r"(^|[./@])example\.(com|org|net)\b|://example-")  # names that belong to nobody


def main(arguments: Sequence[str]) -> int:
    """Check what folders render, files hold and the chart makes, together. Returns 1 if something is wrong."""
    given = build_parser().parse_args(arguments)
    flags = [f"--{name}={value}" for name in _HELMS_OWN for value in getattr(given, name.replace("-", "_"))]
    with_chart = bool(flags or given.chart or not given.folders)
    folders = list(dict.fromkeys(Path(one) for one in given.folders))
    where = " + ".join([*map(str, folders), *(["the chart"] if with_chart else [])])
    try:
        bundles = [_objects(folder) for folder in folders]
        wrong = [fault for one in folders if one.is_dir() for fault in override_faults(one)]
        if with_chart:
            named = ("template", given.release, str(CHART), "--namespace", given.namespace)
            bundles.append(parse(run_helm(*named, *flags)))
    except (ValueError, OSError, RuntimeError, yaml.YAMLError) as error:
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


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="deploy-check", allow_abbrev=False, description="Check manifests before they are applied."
    )
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="with a kustomization; or a file of objects")
    parser.add_argument("--chart", action="store_true", help="the chart with its default values")
    for name in _HELMS_OWN:
        short = ["-f"] if name == "values" else []
        parser.add_argument(*short, f"--{name}", action="append", default=[], help="of the chart, as Helm takes it")
    parser.add_argument("--release", default="inferry", help="of the chart (%(default)s)")
    parser.add_argument("--namespace", "-n", default="inferry", help="of the release (%(default)s)")
    return parser


def _objects(path: Path) -> Bundle:
    return parse(path.read_text()) if path.is_file() else render(path)


def _notes(bundle: Bundle) -> Iterator[str]:
    for image in local_images(bundle):
        yield f"{image} names no registry: every node must have it (kind load docker-image)"
    yield from (f"{text} is an example's address: put your own there" for text in examples(bundle))
    yield from (f"not checked: {text}" for text in unchecked(bundle))
    for server in servers(bundle):
        if server.settings.access_policy is not None and server.settings.tls_certificate is None:
            yield f"{server.template.owner}: tokens travel in the clear: whoever reads along has them (component `tls`)"


def local_images(bundle: Bundle) -> list[str]:
    """Images of our own that nodes would ask Docker Hub for, where they are not."""
    images = {one["image"] for template in bundle.templates() for one in template.containers if "image" in one}
    return sorted(one for one in images if "/" not in one and image_name({"image": one}).startswith("inferry-"))


def examples(bundle: Bundle) -> list[str]:
    """Images and addresses that nobody can have: those of examples."""
    found: set[str] = set()
    for template in bundle.templates():
        found |= {one.get("image", "") for one in template.containers}
        found |= {argument for one in template.containers for argument in one.get("args", []) if "://" in argument}
        found |= {volume["image"]["reference"] for volume in template.spec.get("volumes", []) if "image" in volume}
        found |= {template.spec.get("model", {}).get("storageUri", "")}
    return sorted(one for one in found if _EXAMPLE.search(one))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
