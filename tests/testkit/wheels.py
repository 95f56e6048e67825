"""Wheels built from a copy of the checkout, so that neither its leftovers get in nor ours into the checkout."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("proto", "trainer", "server", "clients", "pyproject.toml", "setup.py", "README.md", "LICENSE")


def build_wheel(folder: Path, **variables: str) -> tuple[Path, str]:
    """A wheel, and what the build said.

    Args:
        folder: a new one, for the copy.
        variables: of the environment, besides those of this process.
    """
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, folder / name)
    environment: Mapping[str, str] = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", folder],
        check=False, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]
    (built,) = (folder / "dist").glob("*.whl")
    return built, said
