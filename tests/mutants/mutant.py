"""A guard taken away: the statement that a marker names is exchanged, and tests must notice.

A marker is a comment at the end of the guard's line, `# guard: rows-of-a-lane`, or of several guards,
`# guard: one, two`. It belongs to the innermost statement on whose lines it stands; of a statement with a body (`if`,
`for`, `with`, `def`) only the header is exchanged. So neither formatting nor moving a guard loses it.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

PACKAGES = ("proto", "server", "clients", "trainer")
SAME = "{guard}"
_MARKER = re.compile(r"# guard: ([a-z0-9-]+(?:, [a-z0-9-]+)*)\s*$")


@dataclass(frozen=True)
class Mutant:
    """One fault, planted at the statement with its marker.

    Attributes:
        name: the marker's, in lower case with hyphens.
        guard: what is taken away, in words.
        new: what stands there instead, without its indentation; empty for nothing. `SAME` in it is the statement.
        tests: node ids, from the repository's root; any of them may notice.
    """

    name: str
    guard: str
    new: str
    tests: tuple[str, ...]

    def path(self, root: Path) -> Path:
        """The file that holds the marker.

        Raises:
            ValueError: no file has it, or more than one line does.
        """
        places = marked_lines(root).get(self.name, [])
        if len(places) != 1:
            raise ValueError(f"{self.name}: {len(places)} lines have the marker `# guard: {self.name}`, expected one")
        return places[0][0]

    def mutated(self, root: Path) -> str:
        """The text of that file, with the guard gone.

        Raises:
            ValueError: the marker is missing, stands more than once, or belongs to no statement.
        """
        text = self.path(root).read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        first, last = statement_at(text, marked_lines(root)[self.name][0][1])
        old = textwrap.dedent("".join(lines[first - 1 : last]))
        indent = re.match(r"\s*", lines[first - 1])[0]  # type: ignore[index]  # matches every line
        new = textwrap.indent(self.new.replace(SAME, old.rstrip("\n")) or "pass", indent)
        return "".join([*lines[: first - 1], new + "\n", *lines[last:]])


@lru_cache(maxsize=8)
def marked_lines(root: Path) -> dict[str, list[tuple[Path, int]]]:
    """Where each marker of a tree stands: files and line numbers from 1."""
    found: dict[str, list[tuple[Path, int]]] = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if marker := _MARKER.search(line):
                    for name in marker[1].split(", "):
                        found.setdefault(name, []).append((path, number))
    return found


def statement_at(text: str, line: int) -> tuple[int, int]:
    """The first and last line of the innermost statement, or header of one, that covers a line.

    Raises:
        ValueError: no statement does.
    """
    covering = [extent for extent in extents(text) if extent[0] <= line <= extent[1]]
    if not covering:
        raise ValueError(f"line {line} belongs to no statement")
    return max(covering)


@lru_cache(maxsize=8)
def extents(text: str) -> tuple[tuple[int, int], ...]:
    """The first and last line of every statement, or header of one, in an order that formatting leaves as it is."""
    return tuple(_extents(ast.parse(text)))


def _extents(tree: ast.Module) -> Iterator[tuple[int, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt | ast.ExceptHandler):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno
            yield node.lineno, max(node.lineno, last or node.lineno)


def identifiers(source: str) -> set[str]:
    """Every name and attribute in a piece of source, which may be a header without its body."""
    return set(re.findall(r"[A-Za-z_]\w*", re.sub(r"f?\"[^\"]*\"|#.*", "", source)))
