"""What the commands print: answers as lines, rows as tables."""

from collections.abc import Sequence

from inferry_client.console.output import shown
from inferry_client.results import Classification


def name_class(classification: Classification) -> str:
    """The label, or the index where the model has no labels."""
    return shown(classification.label) or str(classification.index)


def classification_lines(classifications: Sequence[Classification]) -> list[str]:
    """One line a label, `7  99.98 %`; several are aligned."""
    names = [name_class(classification) for classification in classifications]
    shares = [f"{classification.probability * 100:.2f}" for classification in classifications]
    name_width, share_width = max(map(len, names), default=0), max(map(len, shares), default=0)
    return [f"{name:<{name_width}}  {share:>{share_width}} %" for name, share in zip(names, shares, strict=True)]


def picture_lines(path: str, classifications: Sequence[Classification], *, path_width: int) -> list[str]:
    """The lines of one picture among several: its path beside the one label, or above several."""
    lines = classification_lines(classifications)
    path = shown(path)
    if len(lines) == 1:
        return [f"{path:<{path_width}}  {lines[0]}"]
    return [path, *(f"  {line}" for line in lines)]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows below a header, each column as wide as its widest cell."""
    cells = [header, *([shown(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )
