"""Inferry as users install it: the wheel of this checkout, whose hot path is compiled where there is a compiler."""

import compileall
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testkit.wheels import build_wheel


@dataclass(frozen=True)
class Installed:
    """A wheel that was built and unpacked.

    Attributes:
        packages: the folder with its modules. What they need is this environment's.
        hot_path: `compiled` or `python`, as its server says.
    """

    packages: Path
    hot_path: str

    @property
    def environment(self) -> Mapping[str, str]:
        """Of a process that is to import the wheel's modules, not the checkout's."""
        return {"PYTHONPATH": str(self.packages)}


def install(folder: Path) -> Installed:
    """Build a wheel in a folder of its own, in about a minute, and unpack it there."""
    packages = folder / "packages"
    wheel, _ = build_wheel(folder, COMPILE_INFERRY="1")
    zipfile.ZipFile(wheel).extractall(packages)
    compileall.compile_dir(packages, quiet=1)  # as pip does
    return Installed(packages, _hot_path(packages))


def _hot_path(packages: Path) -> str:
    """What the server that would run says of itself."""
    program = (
        "import sys; from pathlib import Path; import inferry_server; from inferry_server.hot_path import hot_path; "
        "sys.exit('not the wheel') if Path(inferry_server.__file__).parents[1] != Path(sys.argv[1]) else "
        "print(hot_path())"
    )
    command = [sys.executable, "-c", program, str(packages)]
    environment = os.environ | {"PYTHONPATH": str(packages)}
    return subprocess.run(
        command, env=environment, cwd=packages, check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()
