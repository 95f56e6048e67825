"""The list of mutants fits the code as it is: so that `make mutants` never finds it stale."""

import builtins
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from mutants.guards import MUTANTS
from mutants.mutant import Mutant, extents, identifiers, marked_lines, statement_at

ROOT = Path(__file__).parents[2]
KEYWORDS = {
    *dir(builtins),
    "if",
    "for",
    "while",
    "in",
    "is",
    "not",
    "and",
    "or",
    "else",
    "return",
    "raise",
    "pass",
    "del",
}
KEYWORDS |= {"break", "continue", "from", "import", "lambda", "guard", "except", "with", "as"}
KNOWN_ELSEWHERE = {"appendleft", "make_instance", "steps"}  # of a deque, an import of the fault's own, a plan


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_guard_has_its_marker_and_the_rest_is_still_a_program(mutant: Mutant) -> None:
    compile(mutant.mutated(ROOT), str(mutant.path(ROOT)), "exec")
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / path).read_text()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_changes_the_code_and_uses_only_names_that_its_file_knows(mutant: Mutant) -> None:
    """Else it would be noticed for a NameError, whatever the tests look at."""
    original = mutant.path(ROOT).read_text()
    assert mutant.mutated(ROOT) != original
    assert identifiers(mutant.new) <= identifiers(original) | KEYWORDS | KNOWN_ELSEWHERE


def test_no_guard_is_listed_twice() -> None:
    assert max(Counter(mutant.name for mutant in MUTANTS).values()) == 1
    assert max(Counter(mutant.guard for mutant in MUTANTS).values()) == 1


def test_every_marker_has_its_mutant() -> None:
    assert sorted(set(marked_lines(ROOT)) - {mutant.name for mutant in MUTANTS}) == []


def test_a_mutant_whose_marker_is_gone_says_so() -> None:
    gone = Mutant("no-such-marker", "none", "", ())
    with pytest.raises(ValueError, match="no-such-marker: 0 lines have the marker"):
        gone.mutated(ROOT)


def displaced_by_formatting(root: Path, folder: Path, mutants: Sequence[Mutant]) -> list[str]:
    """The guards that stand at another statement once their files are formatted with another line length."""
    for path in {mutant.path(root) for mutant in mutants}:
        copy = folder / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    command = [sys.executable, "-m", "ruff", "format", "--quiet", "--isolated", "--line-length", "60", str(folder)]
    subprocess.run(command, check=True)
    return [mutant.name for mutant in mutants if place(mutant, root) != place(mutant, folder)]


def place(mutant: Mutant, root: Path) -> list[int]:
    """Which statement of its file a guard is: its number; several stand on one line only if badly formatted."""
    text = mutant.path(root).read_text()
    chosen = statement_at(text, marked_lines(root)[mutant.name][0][1])
    return [number for number, extent in enumerate(extents(text)) if extent == chosen]


def test_guards_are_found_again_after_formatting_with_another_line_length(tmp_path: Path) -> None:
    assert displaced_by_formatting(ROOT, tmp_path, MUTANTS) == []
    paths = {mutant.path(ROOT) for mutant in MUTANTS}
    assert any((tmp_path / path.relative_to(ROOT)).read_text() != path.read_text() for path in paths)
    for mutant in MUTANTS:
        compile(mutant.mutated(tmp_path), mutant.name, "exec")


def test_a_guard_that_formatting_moves_to_another_statement_is_named(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "late.py").write_text(
        "def late(a, b):\n"
        "    if a: return None  # guard: on-two-statements\n"
        "    while b is not None and b.deadline is not None and b.deadline < a.now:  # guard: on-a-long-line\n"
        "        b = b.following\n"
    )
    mutants = [Mutant(name, name, "return b", ()) for name in ("on-two-statements", "on-a-long-line")]
    assert displaced_by_formatting(tmp_path, tmp_path / "formatted", mutants) == ["on-two-statements"]
