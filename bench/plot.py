"""Throughput and p99 against concurrency, as an SVG drawn by hand."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Curve = Mapping[int, float]
"""A figure by concurrency."""

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 560, 320, 64, 150, 40, 46
# Told apart in print and by colour-blind readers too: the markers differ as well.
_COLOURS = ("#0b62a4", "#d1495b", "#2e7d32", "#8d6e00", "#6a4c93", "#455a64")
_MARKERS = ("circle", "square", "diamond", "triangle", "circle", "square")


@dataclass(frozen=True)
class Panel:
    """One diagram: curves by name.

    Attributes:
        title: what is drawn, with its unit.
        curves: by the name that is written beside them.
        logarithmic: whether its vertical axis is.
    """

    title: str
    curves: Mapping[str, Curve]
    logarithmic: bool = False


def draw(rows: Sequence[Sequence[Panel]]) -> str:
    """Panels in rows, as one SVG document.

    Raises:
        ValueError: a panel has no curve, or a figure that its axis cannot show.
    """
    names = list(dict.fromkeys(name for row in rows for panel in row for name in panel.curves))
    style = {name: number % len(_COLOURS) for number, name in enumerate(names)}
    width, height = _WIDTH * max(map(len, rows)), _HEIGHT * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for line, row in enumerate(rows):
        for column, panel in enumerate(row):
            moved = f'<g transform="translate({column * _WIDTH} {line * _HEIGHT})">'
            parts += [moved, *_panel(panel, style), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, style: Mapping[str, int]) -> list[str]:
    xs = sorted({x for curve in panel.curves.values() for x in curve})
    ys = [y for curve in panel.curves.values() for y in curve.values()]
    if not ys or (panel.logarithmic and min(ys) <= 0):
        raise ValueError(f"{panel.title!r} cannot be drawn from {ys}; expected figures, positive on a logarithmic axis")
    ticks = decades(min(ys), max(ys)) if panel.logarithmic else steps(max(ys))
    x_of = _Scale(math.log2(xs[0]), math.log2(xs[-1]), _LEFT, _WIDTH - _RIGHT)
    value = math.log10 if panel.logarithmic else float
    y_of = _Scale(value(ticks[0]), value(ticks[-1]), _HEIGHT - _BOTTOM, _TOP)
    parts = [f'<text x="{_LEFT}" y="22" font-weight="bold">{escape(panel.title)}</text>']
    for tick in ticks:
        y = y_of(value(tick))
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:,g}</text>')
    for x in xs:
        at = x_of(math.log2(x))
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{x}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">requests at a time</text>')
    labels = _apart({name: y_of(value(curve[max(curve)])) for name, curve in panel.curves.items()})
    for name, curve in panel.curves.items():
        points = [(x_of(math.log2(x)), y_of(value(curve[x]))) for x in sorted(curve)]
        colour = _COLOURS[style[name]]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [_marker(_MARKERS[style[name]], x, y, colour) for x, y in points]
        label = f'<text x="{points[-1][0] + 10:.1f}" y="{labels[name] + 4:.1f}" fill="{colour}">{escape(name)}</text>'
        parts.append(label)
    return parts


def steps(most: float) -> list[float]:
    """Round numbers from 0 to beyond a figure, four to eight of them."""
    size = 10.0 ** math.floor(math.log10(most)) if most > 0 else 1.0
    size = next(size * factor for factor in (0.2, 0.25, 0.5, 1, 2) if most / (size * factor) <= 6)
    return [size * number for number in range(math.ceil(most / size - 1e-9) + 1)] if most > 0 else [0.0, 1.0]


def decades(least: float, most: float) -> list[float]:
    """Powers of ten around figures, two at least."""
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True)
class _Scale:
    first: float
    last: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.first) / ((self.last - self.first) or 1.0)


def _apart(heights: Mapping[str, float], gap: float = 14.0) -> dict[str, float]:
    """Move labels down until none covers another."""
    placed: dict[str, float] = {}
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        placed[name] = max(height, max(placed.values(), default=-math.inf) + gap)
    return placed


def _marker(kind: str, x: float, y: float, colour: str) -> str:
    corners = {"square": [(-3, -3), (3, -3), (3, 3), (-3, 3)], "diamond": [(0, -4), (4, 0), (0, 4), (-4, 0)],
               "triangle": [(0, -4), (4, 3), (-4, 3)]}  # fmt: skip
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners[kind])
    return f'<polygon points="{points}" fill="{colour}"/>'
