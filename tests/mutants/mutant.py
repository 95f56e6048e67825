"""A guard taken away: one file of the tree with one text exchanged, and the tests that must notice."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """One fault, planted by exchanging a text that is in its file exactly once.

    Attributes:
        guard: what is taken away; its name in the report.
        path: of the file, from the repository's root.
        old: the guard, as it is written.
        new: what stands there instead.
        tests: node ids, from the repository's root; any of them may notice.
    """

    guard: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]

    def mutated(self, root: Path) -> str:
        """The file's text with the guard gone.

        Raises:
            ValueError: the guard is not there any more, or more than once.
        """
        text = (root / self.path).read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.guard}: {self.path} has this text {count} times, expected once: {self.old!r}")
        return text.replace(self.old, self.new)
