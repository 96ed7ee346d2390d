"""Text: the spikes of one unit, a number a line; ``#`` begins a comment."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
from pyarrow import csv

from lazypipe.errors import DataError
from lazypipe.io.sources import one_line
from lazypipe.io.spikes.clock import PER_SECOND
from lazypipe.io.spikes.counts import Counts, from_counts
from lazypipe.io.spikes.options import Options
from lazypipe.io.spikes.spikes import Spikes
from lazypipe.io.spikes.trains import from_events
from lazypipe.stores import AnyPath

BYTES_AT_ONCE = 1 << 24
COMMENT = re.compile(rb"#[^\n]*")
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf(inity)?)", re.ASCII | re.IGNORECASE)


def read(path: AnyPath, options: Options) -> Spikes:
    """Spikes of one unit, or with ``counts=True`` its spikes a sample. Errors name the line."""
    uri = str(path)
    clock = options.clock(uri)
    values = _numbers(path, clock.times in PER_SECOND)
    if options.counts:
        return from_counts(Counts.of(values), options, uri)
    return from_events(values, None, clock, uri, options.units, lambda index: f"line {_line_of(path, index):,}")


def _numbers(path: AnyPath, fractional: bool) -> np.ndarray:
    """(n,) int64, or float64 where ``fractional``, or where a number is none that int64 holds."""
    blocks, n_lines = [np.zeros(0, np.float64 if fractional else np.int64)], 0
    try:
        with path.open("rb") as file:
            while raw := file.read(BYTES_AT_ONCE):
                if b"\0" in raw:
                    raise DataError(f"{path}: is no text: byte {raw.index(0):,} is 0. Give a binary file its suffix.")
                raw += file.readline()
                blocks.append(_parsed(_stripped(raw, n_lines == 0), fractional, n_lines, path))
                n_lines += raw.count(b"\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}). Check its rights.") from error
    return np.concatenate(blocks)


def _stripped(raw: bytes, is_first: bool) -> bytes:
    """Without comments, a byte order mark, and the ends of lines of other systems."""
    if is_first:
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return COMMENT.sub(b"", raw) if b"#" in raw else raw


def _parsed(text: bytes, fractional: bool, first_line: int, path: AnyPath) -> np.ndarray:
    """The numbers of a text, one a line.

    Arrow's reader is 20 times as fast as Python, but knows no line of blanks and no plus sign: what it refuses is
    read line by line, which also finds the line that is no number.
    """
    if not text.strip():
        return np.zeros(0, np.int64)
    kinds = (pa.float64(),) if fractional else (pa.int64(), pa.float64())
    for kind in () if b"x" in text or b"X" in text else kinds:  # it would read 0x10 as 16
        try:
            table = csv.read_csv(
                pa.BufferReader(text),
                csv.ReadOptions(use_threads=False, column_names=["value"]),
                csv.ParseOptions(quote_char=False),
                csv.ConvertOptions(column_types={"value": kind}, null_values=[]),
            )
            values: np.ndarray = table["value"].to_numpy()
            return values
        except pa.ArrowInvalid:
            pass
    return _parsed_by_line(text, first_line, path)


def _parsed_by_line(text: bytes, first_line: int, path: AnyPath) -> np.ndarray:
    words = []
    for number, line in enumerate(text.decode(errors="replace").split("\n"), start=first_line + 1):
        word = line.strip()
        if word and not NUMBER.fullmatch(word):
            raise DataError(
                f"{path}: line {number:,}: {word[:40]!r} is no number. Write one a line, and # before what is none."
            )
        if word:
            words.append(word)
    whole = all(WHOLE.fullmatch(word) for word in words)
    try:
        return np.array([int(word) if whole else float(word) for word in words], np.int64 if whole else np.float64)
    except OverflowError:
        return np.array([float(word) for word in words])


def _line_of(path: AnyPath, index: int) -> int:
    """The line, from 1, of number ``index``."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if line.partition("#")[0].strip():
                if index == 0:
                    return number
                index -= 1
    raise DataError(f"{path}: has been changed while it was read. Read it again.")
