"""Tables in a terminal, and as markdown."""

from __future__ import annotations

from collections.abc import Sequence

Row = Sequence[str]


def aligned(table: Sequence[Row], left: bool = False) -> list[str]:
    """Lines with all columns flush right, or left; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    if left:
        return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]


def markdown(table: Sequence[Row]) -> list[str]:
    head, *rows = table
    return [f"| {' | '.join(row)} |" for row in (head, ["--:"] * len(head), *rows)]
