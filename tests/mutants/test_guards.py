"""The list of mutants fits the code as it is: so that `make mutants` never finds it stale."""

from collections import Counter
from pathlib import Path

import pytest

from mutants.guards import MUTANTS
from mutants.mutant import Mutant

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.guard)
def test_a_guard_is_where_its_mutant_looks_for_it_and_the_rest_is_still_a_program(mutant: Mutant) -> None:
    compile(mutant.mutated(ROOT), mutant.path, "exec")
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / path).read_text()


def test_no_guard_is_listed_twice() -> None:
    assert max(Counter(mutant.guard for mutant in MUTANTS).values()) == 1


def test_a_mutant_whose_guard_is_gone_says_so() -> None:
    gone = Mutant("none", "tests/mutants/guards.py", "no such text", "", ())
    with pytest.raises(ValueError, match=r"none: tests/mutants/guards\.py has this text 0 times"):
        gone.mutated(ROOT)
