"""Showing what was measured: a table, JSON, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
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


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def as_json(
    rows: Sequence[Row], details: dict[str, Any], machine: dict[str, Any], command: str
) -> dict[str, Any]:
    """Everything, for a program to read."""
    return {
        "command": command,
        "machine": machine,
        "rows": [asdict(row) for row in rows],
        "details": details,
    }


BAR, WIDTH, LEFT, LINE = 300, 760, 330, 22
COLOURS = {"C floor": "#999999", "everwire": "#2a6fdb"}


def plot(groups: dict[str, list[tuple[str, float]]]) -> str:
    """Draw bars, a group for each case, as SVG: no library is needed for that."""
    parts: list[str] = []
    y = 10
    for title, bars in groups.items():
        y += LINE
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{escape(title)}</text>')
        longest = max(value for _, value in bars)
        for name, value in bars:
            y += LINE
            width = max(1.0, value / longest * BAR)
            colour = COLOURS.get(name, "#c9a227")
            parts.append(f'<text x="{LEFT - 10}" y="{y}" text-anchor="end">{escape(name)}</text>')
            parts.append(
                f'<rect x="{LEFT}" y="{y - 13}" width="{width:.1f}" height="16" fill="{colour}"/>'
            )
            parts.append(f'<text x="{LEFT + width + 8:.1f}" y="{y}">{value:.3g}</text>')
        y += LINE // 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 20}" '
        f'font-family="sans-serif" font-size="13">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )
