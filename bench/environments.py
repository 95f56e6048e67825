"""Environments of programs that are compared with or used, one each, outside the repository.

`~/.cache/inferry-bench/<name>-<digest of its pins>`, made with pip on demand; `INFERRY_BENCH_CACHE` names another
folder. A changed pin makes a new environment.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

PINS = Path(__file__).with_name("peers")
_INSTALL_S = 600


class EnvironmentFailedError(Exception):
    """An environment that could not be made."""


def environment(name: str) -> Path:
    """The environment of `peers/<name>.txt`, made if need be.

    Raises:
        EnvironmentFailedError: pip could not install it; the message ends with what it said.
    """
    pins = PINS / f"{name}.txt"
    digest = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("INFERRY_BENCH_CACHE", Path.home() / ".cache" / "inferry-bench"))
    made = cache / f"{name}-{digest}"
    if (made / "ready").exists():
        return made
    cache.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(made, ignore_errors=True)  # of an attempt that was broken off
    print(f"installing {name} into {made}", file=sys.stderr)
    venv.create(made, with_pip=True)
    command = [python_of(made), "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", pins]
    with tempfile.TemporaryFile() as said:
        status = subprocess.run(list(map(str, command)), stdout=said, stderr=said, timeout=_INSTALL_S, check=False)
        said.seek(0)
        if status.returncode != 0:
            raise EnvironmentFailedError(f"{name} cannot be installed: {said.read().decode(errors='replace')[-2000:]}")
    (made / "ready").touch()
    return made


def python_of(made: Path) -> Path:
    """The interpreter of an environment."""
    return made / "bin" / "python"


def site_packages(made: Path) -> Path:
    """Where an environment's packages are."""
    return made / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def python_library() -> Path:
    """The folder of libpython, for programs that embed the interpreter."""
    return Path(sysconfig.get_config_var("LIBDIR"))
