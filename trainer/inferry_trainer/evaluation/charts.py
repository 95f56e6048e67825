"""Charts as inline SVG: axes, a legend, no library and no script."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from inferry_trainer.evaluation.reliability import Reliability

_WIDTH, _HEIGHT = 460, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 34, 36
_SERIES_CLASSES = ("first", "second")  # colours are the page's
_TICKS = 5
_SMALLEST_SPAN = 1e-300  # smaller ones have no logarithm once they are divided


def line_chart(title: str, series: Mapping[str, Sequence[float]]) -> str:
    """Values by epoch.

    Args:
        title: above the chart.
        series: one or two rows of values by name, all of the same length, the first for epoch 1.
    """
    values = [value for row in series.values() for value in row]
    epochs = max(len(row) for row in series.values())
    ticks = nice_ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]

    def x(epoch: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ((epoch - 1) / max(epochs - 1, 1) if epochs > 1 else 0.5)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (value - low) / (high - low)

    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)} by epoch">',
        f'<text class="title" x="{_LEFT}" y="18">{escape(title)}</text>',
    ]
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick + 0.0:.4g}</text>'
        )
    parts.extend(
        f'<text class="tick" x="{x(epoch):.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{epoch}</text>'
        for epoch in _epoch_ticks(epochs)
    )
    parts.append(
        f'<text class="tick" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">epoch</text>'
    )
    for index, ((name, row), style) in enumerate(zip(series.items(), _SERIES_CLASSES, strict=False)):
        points = [(x(epoch), y(value)) for epoch, value in enumerate(row, start=1)]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline class="{style}" points="{path}"/>')
        parts.extend(f'<circle class="{style}" cx="{px:.1f}" cy="{py:.1f}" r="2.4"/>' for px, py in points)
        parts.append(_legend_entry(name, style, right=_WIDTH - _RIGHT - (len(series) - 1 - index) * 96))
    return "\n".join([*parts, "</svg>"])


def nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers, evenly apart, from at or below `low` to at or above `high`; at least two."""
    span = high - low or abs(high)
    if span < _SMALLEST_SPAN:
        span = 1.0
    rough = span / (_TICKS - 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = magnitude * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [tick * step for tick in range(first, max(last, first + 1) + 1)]


def _epoch_ticks(epochs: int) -> list[int]:
    step = max(1, math.ceil(epochs / 10))
    return list(range(step, epochs + 1, step))


def _legend_entry(name: str, style: str, *, right: float) -> str:
    return (
        f'<circle class="{style}" cx="{right - 70}" cy="14" r="4"/>'
        f'<text class="tick" x="{right - 62}" y="18">{escape(name)}</text>'
    )


def reliability_diagram(reliability: Reliability) -> str:
    """Frequencies over probabilities, the diagonal where they are equal, and how many images each bar stands for."""
    left, right, top, bottom, strip = _LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM, 34
    floor = bottom - strip - 8

    def x(share: float) -> float:
        return left + (right - left) * share

    def y(share: float) -> float:
        return floor - (floor - top) * share

    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Reliability diagram">',
        f'<text class="title" x="{left}" y="18">Reliability</text>',
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.0%}</text>')
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{tick:.0%}</text>')
    most = max(math.log1p(part.images) for part in reliability.bins) or 1.0
    for part in reliability.bins:
        if not part.images:
            continue
        at, width = x(part.low) + 1, x(part.high) - x(part.low) - 2
        height = strip * math.log1p(part.images) / most
        name = f"{part.low:.0%} to {part.high:.0%}: {part.images} images, {part.frequency:.1%} true"
        parts.append(
            f'<rect class="first" x="{at:.1f}" width="{width:.1f}" y="{y(part.frequency):.1f}" '
            f'height="{max(floor - y(part.frequency), 0.5):.1f}"><title>{escape(name)}</title></rect>'
            f'<rect class="count" x="{at:.1f}" width="{width:.1f}" y="{bottom - height:.1f}" height="{height:.1f}"/>'
        )
    parts.append(
        f'<line class="second" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(1):.1f}" y2="{y(1):.1f}"/>'
        f'<text class="tick" x="{left - 6}" y="{bottom}" text-anchor="end">images</text>'
        f'<text class="tick" x="{(left + right) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">'
        f"probability of {escape(reliability.of)}</text>"
    )
    return "\n".join([*parts, "</svg>"])
