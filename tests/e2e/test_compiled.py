"""The wheel whose hot path is compiled, in a fresh environment: what holds in Python holds there.

These are slow: they compile, and run the tests of what was compiled once more. `make test-all` runs them.
"""

import subprocess
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from testkit.wheels import ROOT, build_wheel

pytestmark = pytest.mark.slow

TESTS = (
    "tests/server/wire", "tests/server/batching", "tests/server/executing", "tests/server/services",
    "tests/server/telemetry", "tests/server/front_ends", "tests/server/rpc", "tests/contract",
)  # fmt: skip
# They put functions in the place of compiled ones, which cannot be.
REPLACING = (
    "tests/server/front_ends/test_calls.py::test_metadata_of_one_form_are_read_once_also_where_there_are_none",
    "tests/server/services/test_coalescing.py::test_a_reply_that_cannot_be_made_for_all_is_made_for_each",
    "tests/server/services/test_sharing_with_variants.py::test_turns_come_sooner_for_what_is_more_than_a_batch",
    "tests/server/wire/test_reading_spoiled.py::test_a_plan_that_is_believed_too_much_is_noticed",
)
TESTS_TIMEOUT_S = 900


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("source"), COMPILE_INFERRY="1")[0]


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel. What it needs is imported from this one, after the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    zipfile.ZipFile(wheel).extractall(packages)
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def run(python: Path, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, timeout=timeout_s
    )


def test_every_module_of_it_can_be_imported_without_mypy(wheel: Path, python: Path) -> None:
    names = [name.removesuffix(".py") for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")]
    modules = [name.removesuffix("/__init__").replace("/", ".") for name in names if name.startswith("inferry_server/")]
    program = """
import importlib, sys
sys.modules.update(dict.fromkeys(("mypy", "mypyc", "mypy_extensions", "librt")))
imported = [importlib.import_module(name) for name in sys.argv[1:] if not name.endswith("__main__")]
print(sum(not module.__file__.endswith(".py") for module in imported))
"""
    done = run(python, "-c", program, *modules)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


def test_the_server_says_that_it_is_compiled(python: Path) -> None:
    done = run(python, "-m", "inferry_server", "--print-config")
    assert done.stdout.splitlines()[-1] == "# hot path: compiled", done.stderr


def test_what_is_compiled_passes_the_tests_of_what_is_not(python: Path) -> None:
    left_out = [f"--deselect={name}" for name in REPLACING]
    done = run(
        python, "-m", "pytest", "-q", "-m", "not slow", "-n", "2", "-p", "no:cacheprovider", *left_out, *TESTS,
        timeout_s=TESTS_TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]


def test_without_a_compiler_the_wheel_is_python_and_the_build_says_so(tmp_path: Path) -> None:
    built, said = build_wheel(tmp_path, COMPILE_INFERRY="1", CC="no-such-compiler")
    assert "the hot path stays Python: a C file that includes Python.h could not be compiled" in said
    assert built.name.endswith("-py3-none-any.whl")
    assert not [name for name in zipfile.ZipFile(built).namelist() if name.endswith(".so")]
