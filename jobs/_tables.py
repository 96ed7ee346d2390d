"""Tables in a terminal, and as markdown."""

from __future__ import annotations

from collections.abc import Sequence

Row = Sequence[str]


def aligned(table: Sequence[Row], left: bool = False, ruled: bool = False) -> list[str]:
    """Lines with all columns flush right, or left; the first row is the head, with a rule below it where ``ruled``."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rows = [*table[:1], ["-" * width for width in widths], *table[1:]] if ruled else table
    pad = str.ljust if left else str.rjust
    return ["  ".join(map(pad, row, widths)).rstrip() for row in rows]


def markdown(table: Sequence[Row], sides: Row | None = None) -> list[str]:
    """Lines with all columns flush right, or as ``sides`` say (``---`` left, ``--:`` right)."""
    head, *rows = table
    return [f"| {' | '.join(row)} |" for row in (head, sides or ["--:"] * len(head), *rows)]
