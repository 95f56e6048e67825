"""What a run was made with: library versions, the machine, and the revision of this code."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from inferry_proto.cores import available_cores

_LIBRARIES = ("inferry", "tensorflow", "keras", "numpy", "pillow", "scikit-learn", "tf2onnx", "onnx")
_RUNTIMES = ("onnxruntime-gpu", "onnxruntime")  # one module, two distributions


def library_versions() -> dict[str, str]:
    """Versions by distribution name, Python's among them; those not installed are left out."""
    versions = {"python": platform.python_version()}
    for name in (*_LIBRARIES, *_RUNTIMES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def machine() -> str:
    """What computes here, for people: processor, cores this process may use, system."""
    cores = available_cores()
    parts = [_processor(), f"{cores} {'core' if cores == 1 else 'cores'}", f"{platform.system()} {platform.machine()}"]
    return ", ".join(part for part in parts if part)


def _processor() -> str:
    """The processor's name; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def git_revision(folder: Path = Path(__file__).parent) -> str:
    """The commit of the checkout that holds this code.

    Returns:
        40 hexadecimal digits, then `-dirty` where tracked files were changed; empty where the
        code is not tracked by git (installed from a wheel, say) or git is not there.
    """
    if not _git(folder, "ls-files", "."):
        return ""
    revision = _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", ":/")
    return f"{revision}-dirty" if revision and changed else revision


def _git(folder: Path, *arguments: str) -> str:
    """Output of a git command without the last line end; empty where it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - git of the user's path
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
