"""Charts as inline SVG that stretches to any width, with its words in HTML beside it, so that they stay readable.

Pure: from numbers to markup. Colours are classes; the page's style sheet gives them, in a light and a dark mode.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 1000.0
_HEIGHT = 100.0


@dataclass(frozen=True)
class Mark:
    """A moment on the time axis: a switch, coloured by what became of it."""

    at: float
    kind: str
    """`good`, `bad` or `left`."""
    title: str


@dataclass(frozen=True)
class Axis:
    """A span of time from left to right, with the ticks that are named."""

    first: float
    last: float
    ticks: Sequence[tuple[float, str]] = ()

    def share(self, at: float) -> float:
        """Where a moment is, from 0 at the left to 1 at the right."""
        return min(1.0, max(0.0, (at - self.first) / (self.last - self.first)))


def nice(highest: float) -> float:
    """A round number at or above the highest value: where a value axis ends."""
    if highest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= highest * 0.999)


def _number(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _point(x: float, y: float) -> str:
    return f"{_number(x * _WIDTH)} {_number((1 - y) * _HEIGHT)}"


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Neighbouring values without a gap between them."""
    runs: list[list[tuple[int, float]]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((index, value))
    return [run for run in runs if run]


def line(values: Sequence[float | None], top: float, style: str, *, filled: bool = False) -> str:
    """A line through values that are evenly apart; None leaves a gap. Each value stands in the middle of its slot."""
    parts = []
    for run in _runs(values):
        points = [_point((index + 0.5) / len(values), min(1.0, value / top)) for index, value in run]
        if len(points) == 1:
            # One value alone is a short dash, or it would not be seen.
            (index, value) = run[0]
            y = min(1.0, value / top)
            points = [_point(index / len(values), y), _point((index + 1) / len(values), y)]
        path = "M" + "L".join(points)
        if filled:
            left, right = points[0].split()[0], points[-1].split()[0]
            parts.append(
                f'<path class="{style} area" d="{path}L{right} {_number(_HEIGHT)}L{left} {_number(_HEIGHT)}Z"/>'
            )
        parts.append(f'<path class="{style} line" d="{path}"/>')
    return "".join(parts)


def bars(values: Sequence[float | None], top: float, style: str, gap: float = 0.24) -> str:
    """A bar for each value, from the bottom up."""
    slot = _WIDTH / max(1, len(values))
    parts = []
    for index, value in enumerate(values):
        if value:
            height = max(1.5, min(1.0, value / top) * _HEIGHT)
            x, y = index * slot + slot * gap / 2, _HEIGHT - height
            width = slot * (1 - gap)
            parts.append(
                f'<rect class="{style}" x="{_number(x)}" y="{_number(y)}" width="{_number(width)}" '
                f'height="{_number(height)}"/>'
            )
    return "".join(parts)


def svg(content: str, label: str, css: str = "") -> str:
    """The drawing itself: stretched to its frame, with a name for those who cannot see it."""
    return (
        f'<svg class="{css}" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}">{content}</svg>'
    )


def rules(marks: Sequence[Mark], axis: Axis) -> str:
    """A line through the plot at each of these moments."""
    return "".join(
        f'<span class="rule {mark.kind}" style="left:{axis.share(mark.at) * 100:.2f}%" '
        f'title="{escape(mark.title)}"></span>'
        for mark in marks
    )


def _ticks(axis: Axis) -> str:
    # A name at the very edge would be cut off.
    return "".join(
        f'<span style="left:{axis.share(at) * 100:.2f}%"><i>{escape(name.rpartition(" ")[0])} </i>'
        f"{escape(name.rpartition(' ')[2])}</span>"
        for at, name in axis.ticks
        if axis.share(at) < 0.97
    )


def panel(
    title: str, content: str, axis: Axis, top: str, label: str, *, marks: Sequence[Mark] = (), named: bool = True
) -> str:
    """One panel on the time axis: a title, the drawing, the value at its top, and (with `named`) the axis' names."""
    names = f'<div class="ticks" aria-hidden="true">{_ticks(axis)}</div>' if named else ""
    lines = "".join(
        f'<span class="tick" style="left:{axis.share(at) * 100:.2f}%"></span>'
        for at, _ in axis.ticks
        if axis.share(at) > 0
    )
    return (
        f'<div class="panel"><div class="paneltop"><h3>{title}</h3>'
        f'<span class="top" aria-hidden="true">{escape(top)}</span>'
        f'</div><div class="plot">{lines}{svg(content, label)}{rules(marks, axis)}</div>{names}</div>'
    )


def spark(values: Sequence[float | None], style: str, label: str) -> str:
    """A small row of bars without axes: how a figure went."""
    top = nice(max((value for value in values if value is not None), default=0.0))
    # A gap is not a zero: it gets a faint stub.
    slot = _WIDTH / max(1, len(values))
    stubs = "".join(
        f'<rect class="stub" x="{_number(index * slot + slot * 0.12)}" y="{_HEIGHT - 4:.0f}" '
        f'width="{_number(slot * 0.76)}" height="4"/>'
        for index, value in enumerate(values)
        if not value
    )
    return svg(stubs + bars(values, top, style), label, "spark")
