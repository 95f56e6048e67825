"""Take one guard away at a time, in copies of the tree, and see that a test notices.

    make mutants                       # all of them
    make mutants ARGS='lanes rows-'    # those whose name has one of these texts in it

Mutants with the same tests are a group, and share a process's copy of the tree. Its tests run first without a fault:
they must pass, and what they take bounds what they may take with one. Ends with 1 if a guard can go unnoticed, or its
tests say nothing, naming it.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from mutants.guards import MUTANTS
from mutants.mutant import PACKAGES, Mutant

ROOT = Path(__file__).parents[2]
COPIED = ("proto", "server", "clients", "trainer", "tests", "bench", "docs", "pyproject.toml")
PATHS = (*PACKAGES, "tests", ".")
UNMUTATED_LIMIT_S = 1800  # they take seconds, on a busy machine minutes
SLOWER, MORE_S = 10, 60  # a fault may make tests wait for ever: they have this many times what they took, and this
_PASSED, _FAILED = 0, 1  # pytest's exit codes; any other means that the tests could not be run


@dataclass(frozen=True)
class Verdict:
    """Who noticed; empty for nobody."""

    mutant: Mutant
    killed_by: str
    seconds: float


class CannotRunError(Exception):
    """The tests say nothing: they fail without a fault, or do not start."""


@dataclass
class Progress:
    """What has come out so far, and a line for each. Several threads add to it."""

    total: int
    verdicts: list[Verdict] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        """One more guard is judged."""
        self.verdicts.append(verdict)
        fate = "killed" if verdict.killed_by else "SURVIVED"
        count = f"[{len(self.verdicts)}/{self.total}]"
        print(f"{count} {fate}: {verdict.mutant.guard} ({verdict.seconds:.0f} s)", flush=True)

    def fail(self, error: str) -> None:
        """Nothing can be said of a guard, or of all that the same tests should notice."""
        self.errors.append(error)
        print(f"ERROR: {error}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants. Returns 0 if every one is killed."""
    parser = argparse.ArgumentParser(description="Take guards away, one at a time, and see that a test notices.")
    parser.add_argument("text", nargs="*", help="only guards whose name has one of these texts")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time (default: 2)")
    parsed = parser.parse_args(arguments)
    texts = parsed.text or [""]
    named = {text: {mutant for mutant in MUTANTS if text in f"{mutant.name} {mutant.guard}"} for text in texts}
    if unknown := [text for text in texts if not named[text]]:
        parser.error(f"no guard has {' or '.join(map(repr, unknown))} in its name")
    chosen = [mutant for mutant in MUTANTS if mutant in set().union(*named.values())]
    try:
        progress = run(chosen, jobs=parsed.jobs)
    except (CannotRunError, ValueError) as error:
        print(f"mutants: error: {error}", file=sys.stderr)
        return 1
    return report(progress)


def run(mutants: Sequence[Mutant], *, jobs: int) -> Progress:
    """The verdict on each, printed as it comes.

    Raises:
        CannotRunError: what would be tested is not the copy.
        ValueError: a mutant's guard is not in the tree any more.
    """
    groups: dict[tuple[str, ...], list[Mutant]] = {}
    for mutant in mutants:
        mutant.mutated(ROOT)
        groups.setdefault(mutant.tests, []).append(mutant)
    print(f"{len(mutants)} mutants, in {len(groups)} groups with the same tests", flush=True)
    progress = Progress(len(mutants))
    with tempfile.TemporaryDirectory(prefix="inferry-mutants-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            trees.put(copy_tree(Path(folder) / str(number)))
        check_imports(trees)
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda group: judge_group(group, trees, progress), groups.values()))
    return progress


def copy_tree(target: Path) -> Path:
    """What the tests need of the tree."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(ROOT / name, target / name)
    return target


def check_imports(trees: "SimpleQueue[Path]") -> None:
    """It is the copy that is tested, not what is installed.

    Raises:
        CannotRunError: it is not.
    """
    tree = trees.get()
    imported = subprocess.run(
        [sys.executable, "-c", "import inferry_server, inferry_proto; print(inferry_server.__file__)"],
        env=environment(tree), cwd=tree, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    if not Path(imported).is_relative_to(tree):
        raise CannotRunError(f"{imported.strip()} would be tested, which is not the copy in {tree}")
    trees.put(tree)


def judge_group(group: Sequence[Mutant], trees: "SimpleQueue[Path]", progress: Progress) -> None:
    """Run the tests that these mutants share without a fault, then with each one's."""
    tree = trees.get()
    try:
        began = time.monotonic()
        code, output = run_tests(tree, group[0].tests, limit_s=UNMUTATED_LIMIT_S)
        limit_s = SLOWER * (time.monotonic() - began) + MORE_S
        if code != _PASSED:
            return progress.fail(f"{', '.join(group[0].tests)}: they do not pass without a mutant:\n{output}")
        for mutant in group:
            try:
                progress.add(judge(mutant, tree, limit_s))
            except CannotRunError as error:
                progress.fail(str(error))
    finally:
        trees.put(tree)


def judge(mutant: Mutant, tree: Path, limit_s: float) -> Verdict:
    """Plant the fault, run its tests, and put the tree in order again.

    Raises:
        CannotRunError: pytest ran no tests.
    """
    path = mutant.path(tree)
    original = path.read_text(encoding="utf-8")
    began = time.monotonic()
    try:
        path.write_text(mutant.mutated(tree), encoding="utf-8")
        code, output = run_tests(tree, mutant.tests, limit_s=limit_s)
    finally:
        path.write_text(original, encoding="utf-8")
    if code not in (None, _PASSED, _FAILED):
        raise CannotRunError(f"{mutant.guard}: the tests could not be run:\n{output}")
    killed_by = f"no end after {limit_s:.0f} s" if code is None else "" if code == _PASSED else first_failed(output)
    return Verdict(mutant, killed_by, time.monotonic() - began)


def run_tests(tree: Path, tests: Sequence[str], *, limit_s: float) -> tuple[int | None, str]:
    """Pytest's exit code, None where it did not end, and what it printed. Processes that tests leave are ended."""
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:cacheprovider"]
    command += ["-m", "not slow", "--hypothesis-profile=mutants", *tests]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        running = subprocess.Popen(
            command, env=environment(tree), cwd=tree, start_new_session=True, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            code = running.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()
        output.seek(0)
        return code, output.read()


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


def report(progress: Progress) -> int:
    """Print who killed whom, and the survivors last. Returns the exit status."""
    verdicts = sorted(progress.verdicts, key=lambda verdict: MUTANTS.index(verdict.mutant))
    survivors = [verdict.mutant for verdict in verdicts if not verdict.killed_by]
    print("\n| guard | taken away, noticed by |\n| --- | --- |")
    for verdict in verdicts:
        print(f"| {verdict.mutant.guard} | {verdict.killed_by or '**nobody**'} |")
    print(f"\n{len(verdicts) - len(survivors)} of {progress.total} mutants killed")
    for mutant in survivors:
        print(f"mutants: survived: {mutant.guard} ({mutant.path(ROOT).relative_to(ROOT)})", file=sys.stderr)
    for error in progress.errors:
        print(f"mutants: error: {error}", file=sys.stderr)
    return 1 if survivors or progress.errors else 0


if __name__ == "__main__":
    sys.exit(main())
