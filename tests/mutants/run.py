"""Take one guard away at a time, in copies of the tree, and see that a test notices.

    make mutants                       # all of them
    make mutants ARGS='lanes'          # those whose name has this text in it

Ends with 1 if any guard can go unnoticed, naming it.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from mutants.guards import MUTANTS
from mutants.mutant import PACKAGES, Mutant

ROOT = Path(__file__).parents[2]
COPIED = ("proto", "server", "clients", "trainer", "tests", "bench", "pyproject.toml")
PATHS = (*PACKAGES, "tests", ".")
LIMIT_S = 180  # a fault may make the tests wait for ever; they take seconds
_PASSED, _FAILED = 0, 1  # pytest's exit codes; any other means that the tests could not be run


@dataclass(frozen=True)
class Verdict:
    """Who noticed; empty for nobody."""

    mutant: Mutant
    killed_by: str
    seconds: float


class CannotRunError(Exception):
    """The tests say nothing: they fail without a fault, or do not start."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants. Returns 0 if every one is killed."""
    parser = argparse.ArgumentParser(description="Take guards away, one at a time, and see that a test notices.")
    parser.add_argument("text", nargs="?", default="", help="only guards whose name has it")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time (default: 2)")
    parsed = parser.parse_args(arguments)
    chosen = [mutant for mutant in MUTANTS if parsed.text in f"{mutant.name} {mutant.guard}"]
    if not chosen:
        parser.error(f"no guard has {parsed.text!r} in its name")
    try:
        verdicts = run(chosen, jobs=parsed.jobs)
    except (CannotRunError, ValueError) as error:
        print(f"mutants: error: {error}", file=sys.stderr)
        return 1
    return report(verdicts)


def run(mutants: Sequence[Mutant], *, jobs: int) -> list[Verdict]:
    """The verdict on each, in order; progress is printed.

    Raises:
        CannotRunError: a test fails on the tree as it is.
        ValueError: a mutant's guard is not in the tree any more.
    """
    for mutant in mutants:
        mutant.mutated(ROOT)
    with tempfile.TemporaryDirectory(prefix="inferry-mutants-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            trees.put(copy_tree(Path(folder) / str(number)))
        check_unmutated(trees, mutants)
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(judge, mutant, trees) for mutant in mutants]
            show_progress(futures)
        return [future.result() for future in futures]


def copy_tree(target: Path) -> Path:
    """What the tests need of the tree."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(ROOT / name, target / name)
    return target


def check_unmutated(trees: "SimpleQueue[Path]", mutants: Sequence[Mutant]) -> None:
    """The chosen tests pass on the tree as it is, and it is the copy that they test."""
    tree = trees.get()
    imported = subprocess.run(
        [sys.executable, "-c", "import inferry_server, inferry_proto; print(inferry_server.__file__)"],
        env=environment(tree), cwd=tree, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    if not Path(imported).is_relative_to(tree):
        raise CannotRunError(f"{imported.strip()} would be tested, which is not the copy in {tree}")
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    began = time.monotonic()
    print(f"{len(mutants)} mutants; first their {len(tests)} test files, without any", flush=True)
    code, output = run_tests(tree, tests, limit_s=3 * LIMIT_S)
    if code != _PASSED:
        raise CannotRunError(f"the tests do not pass without a mutant:\n{output}")
    print(f"they pass, in {time.monotonic() - began:.0f} s", flush=True)
    trees.put(tree)


def judge(mutant: Mutant, trees: "SimpleQueue[Path]") -> Verdict:
    """Plant the fault in a free tree, run its tests, and put the tree in order again."""
    tree = trees.get()
    path = mutant.path(tree)
    original = path.read_text(encoding="utf-8")
    began = time.monotonic()
    try:
        path.write_text(mutant.mutated(tree), encoding="utf-8")
        code, output = run_tests(tree, mutant.tests, limit_s=LIMIT_S)
    finally:
        path.write_text(original, encoding="utf-8")
        trees.put(tree)
    if code not in (None, _PASSED, _FAILED):
        raise CannotRunError(f"{mutant.guard}: the tests could not be run:\n{output}")
    killed_by = f"no end after {LIMIT_S} s" if code is None else "" if code == _PASSED else first_failed(output)
    return Verdict(mutant, killed_by, time.monotonic() - began)


def run_tests(tree: Path, tests: Sequence[str], *, limit_s: float) -> tuple[int | None, str]:
    """Pytest's exit code, None where it did not end, and what it printed."""
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:cacheprovider"]
    command += ["--hypothesis-profile=mutants", *tests]
    try:
        done = subprocess.run(
            command, env=environment(tree), cwd=tree, check=False, capture_output=True, text=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


def environment(tree: Path) -> dict[str, str]:
    """The copy's packages go before any that is installed."""
    path = os.pathsep.join(str(tree / name) for name in PATHS)
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def first_failed(output: str) -> str:
    """The test that noticed, from pytest's summary."""
    found = re.search(r"^(?:FAILED|ERROR) \S+?([^/\s]+\.py::.*?)(?: - .*)?$", output, re.MULTILINE)
    if found is None:
        raise CannotRunError(f"pytest failed and named no test:\n{output}")
    return found[1]


def show_progress(futures: Sequence["Future[Verdict]"]) -> None:
    """A line for each verdict as it comes."""
    for count, future in enumerate(as_completed(futures), 1):
        verdict = future.result()
        fate = "killed" if verdict.killed_by else "SURVIVED"
        print(f"[{count}/{len(futures)}] {fate}: {verdict.mutant.guard} ({verdict.seconds:.0f} s)", flush=True)


def report(verdicts: Sequence[Verdict]) -> int:
    """Print who killed whom, and the survivors last. Returns the exit status."""
    survivors = [verdict.mutant for verdict in verdicts if not verdict.killed_by]
    print("\n| guard | taken away, noticed by |\n| --- | --- |")
    for verdict in verdicts:
        print(f"| {verdict.mutant.guard} | {verdict.killed_by or '**nobody**'} |")
    print(f"\n{len(verdicts) - len(survivors)} of {len(verdicts)} mutants killed")
    for mutant in survivors:
        print(f"mutants: survived: {mutant.guard} ({mutant.path(ROOT).relative_to(ROOT)})", file=sys.stderr)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
