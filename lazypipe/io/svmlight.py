"""Text in the svmlight (libsvm) format, read in bounded memory: ``label index:value index:value # comment``.

A block of whole lines is parsed at once by array operations and Arrow's parser of numbers; only an error
makes Python look at single lines. The format: https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from lazypipe.errors import DataError
from lazypipe.io.csr import Entries, index_dtype, sorted_rows
from lazypipe.io.sources import one_line
from lazypipe.stores import AnyPath, Place

SUFFIXES = (".svm", ".svmlight", ".libsvm")
PARSED_FACTOR = 80  # bytes held for a byte of text, at most (measured: 20 for long lines, 65 for "1\n")
COLON, PLUS, NEWLINE, SPACE = b":+\n "


def is_svmlight(source: object) -> bool:
    """Whether ``source`` is a path that its suffix (also before ``.gz``) says to be svmlight text."""
    return isinstance(source, (str, Path, Place)) and str(source).lower().removesuffix(".gz").endswith(SUFFIXES)


class TextRows(NamedTuple):
    """Rows parsed from text, indices as they stand there."""

    labels: np.ndarray  # (n_rows,) float64
    lengths: np.ndarray  # (n_rows,) entries of each
    indices: np.ndarray  # (n_entries,) int64, not negative
    values: np.ndarray  # (n_entries,) float64
    lines: np.ndarray  # (n_rows,) the line of each, from 1
    position: int  # bytes of the file read so far


@dataclass(frozen=True)
class Contents:
    """What a scan of a text tells."""

    n_rows: int
    smallest: int  # index; 0 where there are no entries
    largest: int  # index; -1 where there are no entries


def read_text(path: AnyPath, block_nbytes: int) -> Iterator[TextRows]:
    """All rows of the text, about ``block_nbytes`` bytes of it at a time; plain or gzip.

    Raises DataError with the number of the first malformed line, or of one longer than a block.
    """
    line, carry = 1, b""
    with ExitStack() as files:
        try:
            raw: IO[bytes] = files.enter_context(path.open("rb"))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({one_line(error)}). Check the path and its rights.") from error
        zipped = path.suffix.lower() == ".gz"
        text = files.enter_context(gzip.GzipFile(fileobj=raw)) if zipped else raw
        while True:
            try:
                read = text.read(block_nbytes)
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(f"{path}: cannot be read on ({one_line(error)}). Write or copy it again.") from error
            cut = read.rfind(b"\n") + 1
            if read and not cut:
                carry += read
                if len(carry) > block_nbytes:
                    raise DataError(
                        f"{path}: line {line:,} is longer than {block_nbytes:,} bytes, the most that fits memory. "
                        f"Raise memory, or check that the file is svmlight text."
                    )
                continue
            block = carry + (read[:cut] if read else b"\n")
            carry = read[cut:]
            rows = _parse(block, line, path, raw.tell())
            line += block.count(b"\n")
            if len(rows.lines):
                yield rows
            if not read:
                return


def scan(blocks: Iterator[TextRows]) -> Contents:
    """The number of rows, and the smallest and largest index, of the rows in ``blocks``."""
    n_rows, smallest, largest = 0, np.iinfo(np.int64).max, -1
    for rows in blocks:
        n_rows += len(rows.lines)
        if len(rows.indices):
            smallest = min(smallest, int(rows.indices.min()))
            largest = max(largest, int(rows.indices.max()))
    return Contents(n_rows, smallest if largest >= 0 else 0, largest)


def to_entries(rows: TextRows, first: int, n_columns: int, path: AnyPath) -> Entries:
    """The rows as sorted entries, indices counted from 0; ``first`` (0 or 1) is what the text counts from.

    Raises DataError, with the line, for an index outside ``n_columns`` and for a column named twice.
    """
    ends = np.concatenate([[0], np.cumsum(rows.lengths)])
    outside = (rows.indices < first) | (rows.indices >= n_columns + first)
    if outside.any():
        at = int(np.argmax(outside))
        index = int(rows.indices[at])
        if index < first:
            what, remedy = "where indices count from 1", "Pass zero_based=True, or leave it out"
        else:
            what, remedy = f"beyond the {n_columns:,} columns", "Pass a larger n_columns, or leave it out"
        raise DataError(f"{path}: line {_line(rows, ends, at):,} has index {index:,} {what}. {remedy}.")
    dtype = index_dtype(n_columns, len(rows.indices))
    entries = sorted_rows(Entries(ends.astype(dtype), (rows.indices - first).astype(dtype), rows.values))
    same = entries.indices[1:] == entries.indices[:-1]
    same[ends[1:-1][(ends[1:-1] > 0) & (ends[1:-1] < ends[-1])] - 1] = False
    if same.any():
        at = int(np.argmax(same))
        raise DataError(
            f"{path}: line {_line(rows, ends, at):,} has index {int(entries.indices[at]) + first:,} twice. "
            f"Leave one of them out."
        )
    return entries


def _line(rows: TextRows, ends: np.ndarray, at: int) -> int:
    return int(rows.lines[np.searchsorted(ends, at, side="right") - 1])


def _parse(block: bytes, first_line: int, path: AnyPath, position: int) -> TextRows:
    """The rows of ``block``, whole lines, the last with its end."""
    if b"#" in block:
        block = re.sub(rb"#[^\n]*", b"", block)
    if b"qid:" in block:
        block = re.sub(rb"(?<=[ \t])qid:[^\s]*", b"", block)
    text = np.frombuffer(block, np.uint8).copy()
    blank = (text - np.uint8(9) < 5) | (text == SPACE)  # tab, both line ends, and two more
    begins = ~blank
    begins[1:] &= blank[:-1]
    tokens, colons = np.flatnonzero(begins), np.flatnonzero(text == COLON)
    line_ends = np.flatnonzero(text == NEWLINE)
    line_of = np.searchsorted(line_ends, tokens)
    n_tokens = np.bincount(line_of, minlength=len(line_ends))
    is_label = np.diff(line_of, prepend=-1) > 0
    # A token that is no label has one colon, inside it; nothing else has.
    n_colons = np.bincount(np.searchsorted(tokens, colons, side="right") - 1, minlength=len(tokens))
    misplaced = blank[colons - 1] | blank[colons + 1]
    if (n_colons == is_label).any() or misplaced.any() or (n_colons > 1).any():
        raise _malformed(block, first_line, path)
    pluses = np.flatnonzero(text == PLUS)
    signs = pluses[blank[pluses - 1] | (text[pluses - 1] == COLON)]
    text[signs] = NEWLINE  # Arrow knows no sign +
    text[blank] = NEWLINE
    text[colons] = NEWLINE
    numbers = _numbers(text)
    if numbers is None or len(numbers) != len(tokens) + len(colons):
        raise _malformed(block, first_line, path)
    at = np.arange(len(tokens)) + np.cumsum(~is_label) - ~is_label  # of a token's first number
    found = numbers[at[~is_label]]
    if not ((found >= 0) & (found < 2**53) & (found == np.floor(found))).all():
        raise _malformed(block, first_line, path)
    filled = np.flatnonzero(n_tokens)
    return TextRows(
        labels=numbers[at[is_label]],
        lengths=n_tokens[filled] - 1,
        indices=found.astype(np.int64),
        values=numbers[at[~is_label] + 1],
        lines=first_line + filled,
        position=position,
    )


def _numbers(text: np.ndarray) -> np.ndarray | None:
    """The numbers in ``text``, one a line, in float64; None where something is no number."""
    if (text == NEWLINE).all():
        return np.zeros(0)
    try:
        table = pacsv.read_csv(
            pa.BufferReader(pa.py_buffer(text)),
            read_options=pacsv.ReadOptions(use_threads=False, column_names=["number"], block_size=len(text) + 1),
            parse_options=pacsv.ParseOptions(quote_char=False),
            convert_options=pacsv.ConvertOptions(column_types={"number": pa.float64()}, null_values=[]),
        )
    except pa.ArrowInvalid:
        return None
    return table.column(0).to_numpy()


WELL_FORMED = re.compile(rb"\s*([^\s:]+)((?:\s+\d+:[^\s:]+)*)\s*")


def _malformed(block: bytes, first_line: int, path: AnyPath) -> DataError:
    """The error for the first line of ``block`` that is no ``label index:value ...``."""
    for number, line in enumerate(block.split(b"\n"), first_line):
        match = WELL_FORMED.fullmatch(line)
        if not line.strip() or (match and _are_numbers([match[1], *re.findall(rb":(\S+)", match[2])])):
            continue
        shown = line.strip().decode(errors="replace")
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return DataError(
            f"{path}: line {number:,} is not 'label index:value ...': {shown!r}. "
            f"Correct it; labels are single numbers, indices whole ones."
        )
    return DataError(f"{path}: lines from {first_line:,} on are not all 'label index:value ...'. Correct them.")


def _are_numbers(tokens: list[bytes]) -> bool:
    try:
        for token in tokens:
            float(token)
    except ValueError:
        return False
    return True
