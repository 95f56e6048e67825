"""Line charts as SVG."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 32, 60, 44
_TICKS = 5
_Place: TypeAlias = Callable[[float, float], tuple[float, float]]

_DOTS_UP_TO = 60  # points of a line; more would be a worm


@dataclass(frozen=True)
class Line:
    """Points that belong together; `colour` is a variable of the page's style."""

    name: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """What is drawn.

    Attributes:
        title: above it, in the page.
        x_name: below.
        y_name: at the side.
        lines: with their names as a legend.
        limit: a level drawn across.
        mark: a place on the x axis drawn upright.
        span: of the x axis; that of the points where it is left out.
    """

    title: str
    x_name: str
    y_name: str
    lines: tuple[Line, ...]
    limit: float | None = None
    mark: float | None = None
    span: tuple[float, float] | None = None


def draw(chart: Chart) -> str:
    """The chart as an `svg` element, as wide as there is room."""
    xs = [x for line in chart.lines for x in line.x]
    ys = [y for line in chart.lines for y in line.y] + ([chart.limit] if chart.limit else [])
    low, high = chart.span or ((min(xs), max(xs)) if xs else (0.0, 1.0))
    x_ticks = ticks(low, high if high > low else low + 1)
    y_ticks = ticks(0.0, max(ys, default=0.0) or 1.0)
    low, high, top = min(x_ticks[0], low), max(x_ticks[-1], high), y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (x - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - y / top * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = [_grid(chart, x_ticks, y_ticks, place)]
    if chart.limit:
        y = place(low, chart.limit)[1]
        parts.append(_stroke((_LEFT, y), (_WIDTH - _RIGHT, y), "--c", dashed=True))
    if chart.mark is not None:
        x = place(chart.mark, 0)[0]
        parts.append(_stroke((x, _TOP), (x, _HEIGHT - _BOTTOM), "--d", dashed=True))
    for number, line in enumerate(chart.lines):
        parts.append(_line(line, [place(x, y) for x, y in zip(line.x, line.y, strict=True)]))
        parts.append(_legend(line, number))
    label = f"{chart.title}: {chart.y_name} by {chart.x_name}"
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def ticks(low: float, high: float) -> list[float]:
    """Round numbers that cover a range, about five of them."""
    step = _round_up((high - low) / _TICKS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= value * (1 - 1e-9))


def _grid(chart: Chart, x_ticks: list[float], y_ticks: list[float], place: _Place) -> str:
    parts = []
    for value in y_ticks:
        x, y = place(x_ticks[0], value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:,.10g}</text>')
    for value in x_ticks:
        x, y = place(value, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{value:,.10g}</text>')
    parts.append(
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 6}" text-anchor="end">{escape(chart.x_name)}</text>'
        f'<text x="4" y="{_TOP - 14}">{escape(chart.y_name)}</text>'
    )
    return "".join(parts)


def _line(line: Line, points: list[tuple[float, float]]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    drawn = f'<polyline points="{path}" fill="none" stroke="var({line.colour})" stroke-width="2"/>'
    if len(points) <= _DOTS_UP_TO:
        drawn += "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="var({line.colour})"/>' for x, y in points)
    return drawn


def _legend(line: Line, number: int) -> str:
    x, y = _LEFT + 4 + number % 2 * 290, 12 + number // 2 * 16
    return (
        f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="var({line.colour})"/>'
        f'<text x="{x + 16}" y="{y}">{escape(line.name)}</text>'
    )


def _stroke(start: tuple[float, float], end: tuple[float, float], colour: str, *, dashed: bool) -> str:
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
        f'stroke="var({colour})" stroke-width="1.5"{dash}/>'
    )
