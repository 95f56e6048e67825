"""The list of mutants fits the code as it is: so that `make mutants` never finds it stale."""

import builtins
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mutants.guards import MUTANTS
from mutants.mutant import Mutant, identifiers, marked_lines

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


def test_guards_are_found_again_after_formatting_with_another_line_length(tmp_path: Path) -> None:
    copies = {}
    for path in {mutant.path(ROOT) for mutant in MUTANTS}:
        copies[path] = tmp_path / path.relative_to(ROOT)
        copies[path].parent.mkdir(parents=True, exist_ok=True)
        copies[path].write_text(path.read_text())
    command = [sys.executable, "-m", "ruff", "format", "--quiet", "--isolated", "--line-length", "60", str(tmp_path)]
    subprocess.run(command, check=True)
    assert any(copy.read_text() != path.read_text() for path, copy in copies.items())
    for mutant in MUTANTS:
        compile(mutant.mutated(tmp_path), mutant.name, "exec")
        assert mutant.mutated(tmp_path) != mutant.path(tmp_path).read_text()
