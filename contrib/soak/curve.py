"""Curves of what was sampled: an SVG to look at, and a line of signs for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_SIGNS = "▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT, _LEFT, _GAP = 900, 90, 150, 26


def line(values: Sequence[float], width: int = 60) -> str:
    """Return a curve of one line, from 0 to the greatest value."""
    if not values:
        return ""
    step = max(1, len(values) // width)
    points = [max(values[at : at + step]) for at in range(0, len(values), step)]
    top = max(points) or 1.0
    return "".join(_SIGNS[min(7, int(value / top * 7.99))] for value in points)


def svg(
    title: str,
    times: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    marks: Sequence[tuple[float, str]],
) -> str:
    """Return curves beneath each other, each from 0 to its greatest value.

    Args:
        times: Seconds since the start, one for each value.
        marks: What happened when; shown as vertical lines.
    """
    end = max([*times, 1.0])
    height = len(curves) * (_HEIGHT + _GAP) + 60
    across = _WIDTH - _LEFT - 20

    def x(at: float) -> float:
        return _LEFT + at / end * across

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="10" y="20" font-size="14">{escape(title)}</text>',
    ]
    for at, what in marks:
        parts.append(
            f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="32" y2="{height - 28}" stroke="#e0b4b4"><title>{escape(what)}</title></line>'
        )
    for number, (name, values) in enumerate(curves.items()):
        base = 40 + number * (_HEIGHT + _GAP) + _HEIGHT
        top = max([*values, 0.0]) or 1.0
        points = " ".join(
            f"{x(at):.1f},{base - value / top * _HEIGHT:.1f}" for at, value in zip(times, values, strict=True)
        )
        parts += [
            f'<text x="10" y="{base - _HEIGHT / 2:.0f}">{escape(name)}</text>',
            f'<text x="{_LEFT - 6}" y="{base - _HEIGHT + 10}" text-anchor="end" fill="#777">{top:g}</text>',
            f'<text x="{_LEFT - 6}" y="{base}" text-anchor="end" fill="#777">0</text>',
            f'<line x1="{_LEFT}" x2="{_WIDTH - 20}" y1="{base}" y2="{base}" stroke="#ccc"/>',
            f'<polyline points="{points}" fill="none" stroke="#1f5fa8" stroke-width="1.5"/>',
        ]
    parts.append(
        f'<text x="{_WIDTH - 20}" y="{height - 10}" text-anchor="end" fill="#777">{end / 60:.0f} minutes; a red line is a fault</text>'
    )
    return "\n".join([*parts, "</svg>", ""])
