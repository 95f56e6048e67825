"""Memory over time as one small SVG; no library draws it."""

from collections.abc import Sequence

_WIDTH, _HEIGHT = 640, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 28, 44


def memory_picture(memory: Sequence[tuple[int, float]], *, x_label: str) -> str:
    """A line of resident MiB.

    Args:
        memory: (position, MiB), ascending by position.
        x_label: what a position counts.
    """
    last, most = max(memory[-1][0], 1), 1.1 * max(mib for _, mib in memory)

    def x(at: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * at / last

    def y(mib: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * mib / most

    text = 'font-family="sans-serif" font-size="12" fill="#444"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="18" {text}>resident memory of the server, MiB</text>',
    ]
    for step in range(5):
        mib, at = most * step / 4, last * step / 4
        parts += [
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(mib):.1f}" y2="{y(mib):.1f}" stroke="#ddd"/>',
            f'<text x="{_LEFT - 8}" y="{y(mib) + 4:.1f}" text-anchor="end" {text}>{mib:,.0f}</text>',
            f'<text x="{x(at):.1f}" y="{_HEIGHT - 26}" text-anchor="middle" {text}>{at:,.0f}</text>',
        ]
    points = " ".join(f"{x(at):.1f},{y(mib):.1f}" for at, mib in memory)
    parts += [
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 8}" text-anchor="middle" {text}>{x_label}</text>',
        f'<polyline points="{points}" fill="none" stroke="#1f6fb4" stroke-width="2"/>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
