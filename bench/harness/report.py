"""Showing what was measured: a table, JSON, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from math import log
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {"pass": "green", "miss": "red", "unclear": "yellow"}


@dataclass
class Row:
    """One line of the table."""

    key: str
    what: str
    server: str
    value: str
    floor: str = ""
    minima: float | None = None
    medians: float | None = None
    target: str = ""
    verdict: str = ""


@dataclass
class Point:
    """A point of a curve: medians in µs, and the ratio of ours to the floor."""

    connections: int
    floor: float
    ours: float
    minima: float
    medians: float


@dataclass
class Curve:
    """The server's CPU for a unit of work, over the number of connections."""

    key: str
    title: str
    unit: str
    server: str
    points: list[Point]


def show(console: Console, rows: Sequence[Row], title: str) -> None:
    """Print the rows as a table."""
    table = Table(title=title, title_justify="left")
    for name in ("", "what", "server"):
        table.add_column(name)
    for name in ("floor", "figure", "min ÷ min", "median pair", "target"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in rows:
        style = STYLES.get(row.verdict.rstrip("?"), "")
        table.add_row(
            row.key, row.what, row.server, row.floor, row.value, _ratio(row.minima),
            _ratio(row.medians), row.target, f"[{style}]{row.verdict}[/]" if style else "",
        )  # fmt: skip
    console.print(table)


def show_curves(console: Console, curves: Sequence[Curve]) -> None:
    """Print each curve as a table, a line for a point."""
    for curve in curves:
        title = f"{curve.key}: {curve.title}; server CPU, µs a {curve.unit}"
        table = Table(title=title, title_justify="left")
        for name in ("connections", "floor", curve.server, "min ÷ min", "median pair"):
            table.add_column(name, justify="right")
        for point in curve.points:
            table.add_row(
                f"{point.connections:,}".replace(",", " "), f"{point.floor:.3g}",
                f"{point.ours:.3g}", _ratio(point.minima), _ratio(point.medians),
            )  # fmt: skip
        console.print(table)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def as_json(
    rows: Sequence[Row],
    curves: Sequence[Curve],
    details: dict[str, Any],
    machine: dict[str, Any],
    command: str,
) -> dict[str, Any]:
    """Everything, for a program to read."""
    return {
        "command": command,
        "machine": machine,
        "rows": [asdict(row) for row in rows],
        "curves": [asdict(curve) for curve in curves],
        "details": details,
    }


BAR, WIDTH, LEFT, LINE = 300, 760, 330, 22
HEIGHT, LENGTH = 180, 560  # of a curve
AXIS = 'fill="none" stroke="#444444"'
COLOURS = {"C floor": "#999999", "everwire": "#2a6fdb"}


def plot(groups: dict[str, list[tuple[str, float]]], curves: Sequence[Curve]) -> str:
    """Draw bars, a group for each case, and the curves, as SVG: no library is needed for that."""
    parts: list[str] = []
    y = 10
    for title, bars in groups.items():
        y += LINE
        parts.append(_text(10, y, title, bold=True))
        longest = max(value for _, value in bars)
        for name, value in bars:
            y += LINE
            width = max(1.0, value / longest * BAR)
            parts.append(_text(LEFT - 10, y, name, anchor="end"))
            parts.append(
                f'<rect x="{LEFT}" y="{y - 13}" width="{width:.1f}" height="16" '
                f'fill="{_colour(name)}"/>'
            )
            parts.append(_text(LEFT + width + 8, y, f"{value:.3g}"))
        y += LINE // 2
    for curve in curves:
        parts += _draw_curve(curve, y)
        y += HEIGHT + 5 * LINE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 20}" '
        f'font-family="sans-serif" font-size="13">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _draw_curve(curve: Curve, top: int) -> list[str]:
    """µs over connections: the axis below is logarithmic, the one at the side begins at 0."""
    points = curve.points
    left, bottom = 60, top + 2 * LINE + HEIGHT
    first, last = log(points[0].connections), log(points[-1].connections)
    most = max(max(point.floor, point.ours) for point in points)
    title = f"{curve.title}: server CPU, µs a {curve.unit}, over connections"
    parts = [
        _text(10, top + LINE, title, bold=True),
        f'<path d="M {left} {bottom - HEIGHT} V {bottom} H {left + LENGTH}" {AXIS}/>',
        _text(left - 6, bottom - HEIGHT + 5, f"{most:.3g}", anchor="end"),
        _text(left - 6, bottom + 5, "0", anchor="end"),
    ]
    across = [left + (log(point.connections) - first) / (last - first) * LENGTH for point in points]
    for name, values in (
        ("C floor", [point.floor for point in points]),
        (curve.server, [point.ours for point in points]),
    ):
        places = [
            (x, bottom - value / most * HEIGHT) for x, value in zip(across, values, strict=True)
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        colour = _colour(name)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        parts.append(_text(places[-1][0] + 10, places[-1][1] + 5, name))
    for x, point in zip(across, points, strict=True):
        parts.append(_text(x, bottom + 18, f"{point.connections}", anchor="middle"))
        parts.append(_text(x, bottom + 18 + LINE, f"{point.medians:.2f} ×", anchor="middle"))
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


def _colour(name: str) -> str:
    return COLOURS.get(name, "#c9a227")
