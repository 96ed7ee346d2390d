"""What Spark's tasks run over a table's batches: the first pass measures, the second writes the numbers in place.

Rows go to the place that their file has among all files, by name, and their split within it: however Spark deals
them out, and if a task runs twice, the same bytes come to the same place.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lazypipe.atomic import CAUSES
from lazypipe.engines.tasks import settle_worker
from lazypipe.errors import DataError
from lazypipe.io.convert import write_whole
from lazypipe.tables.features import Array, Feature, entries, missing, numbers, whole_rows
from lazypipe.tables.fields import Field
from lazypipe.tables.found import Found

REPORT = "report binary"  # the schema of what a task tells the driver
KEY = 2  # the first columns of a batch: the split (a hash of the file's name, and where in the file it begins)
SLAB_NBYTES = 2**23  # of finished rows, near the share of the last-level cache that one core has

Split = tuple[int, int]


@dataclass
class Measured:
    """What is known of some partitions: rows of each split, and what was found of each column."""

    found: list[Found]
    label: Found | None = None
    names: dict[int, str] = field(default_factory=dict)  # of files, by hash
    rows: dict[Split, int] = field(default_factory=dict)
    n_dropped: int = 0

    def merge(self, other: Measured) -> None:
        self.names |= other.names
        for split, n_rows in other.rows.items():
            self.rows[split] = self.rows.get(split, 0) + n_rows
        self.n_dropped += other.n_dropped
        pairs = zip([*self.found, self.label], [*other.found, other.label], strict=True)
        for one, two in pairs:
            if one is not None and two is not None:
                one.merge(two)


@dataclass(frozen=True)
class Measure:
    """The first pass: each task reports what it saw of its rows."""

    features: tuple[Feature, ...]
    label: Feature | None
    drop: bool  # rows with a null
    most_categories: int

    def nothing(self) -> Measured:
        most = self.most_categories
        label = None if self.label is None else Found(self.label, 0)
        return Measured([Found(feature, most) for feature in self.features], label)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from reported(self._measure, batches)

    def _measure(self, batches: Iterator[pa.RecordBatch]) -> Measured:
        seen = self.nothing()
        labels = () if self.label is None else (self.label,)
        for batch in batches:
            names, *columns = batch.columns
            keep = np.ones(batch.num_rows, bool)
            if self.drop:
                keep = whole_rows(self.features + labels, columns[KEY:], batch.num_rows)
                seen.n_dropped += int(batch.num_rows - keep.sum())
            every = [*seen.found, *([] if seen.label is None else [seen.label])]
            for found, column in zip(every, columns[KEY:], strict=True):
                if keep.all():
                    found.add(column)
                else:
                    found.add(column.filter(pa.array(keep)))
                    found.count_nulls(column.filter(pa.array(~keep)))
            for split, rows in splits(columns):
                n_rows = int(keep[rows].sum())
                seen.rows[split] = seen.rows.get(split, 0) + n_rows
                if split[0] not in seen.names:
                    seen.names[split[0]] = names[rows.start].as_py()
        return seen


@dataclass(frozen=True)
class Labels:
    """Where the labels go."""

    feature: Feature
    path: str
    offset: int  # of the first in the file
    dtype: str

    def of(self, column: Array, uri: str) -> np.ndarray:
        """Those of a batch, as their file holds them."""
        if column.null_count:
            raise changed(uri)
        dtype = np.dtype(self.dtype)
        if dtype.kind != "U":
            return numbers(self.feature, column).astype(dtype)
        texts = column.to_pylist()
        if any(len(text) * 4 > dtype.itemsize for text in texts):
            raise changed(uri)
        return np.array(texts, dtype)


@dataclass(frozen=True)
class Write:
    """The second pass: each task writes its rows, and reports how many of each split it wrote."""

    path: str
    offset: int  # of the first row in the file
    dtype: str
    fields: tuple[Field, ...]
    places: dict[Split, tuple[int, int]]  # first row, and rows
    fill: float | None  # what a null becomes; None where there is none
    drop: bool
    uri: str
    labels: Labels | None

    @property
    def width(self) -> int:
        return sum(field.width for field in self.fields)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from reported(self._write, batches)

    def _write(self, batches: Iterator[pa.RecordBatch]) -> dict[Split, int]:
        done: dict[Split, int] = {}
        opened = [open_shared(path) for path in (self.path, *([self.labels.path] if self.labels else []))]
        row_nbytes = self.width * np.dtype(self.dtype).itemsize
        step = max(1, SLAB_NBYTES // row_nbytes)
        features = tuple(field.feature for field in self.fields) + ((self.labels.feature,) if self.labels else ())
        try:
            for batch in batches:
                if self.drop:
                    keep = whole_rows(features, batch.columns[KEY:], batch.num_rows)
                    if not keep.all():
                        batch = batch.filter(pa.array(keep))
                for split, rows in splits(batch.columns):
                    start, stop, _ = rows.indices(batch.num_rows)
                    at = self._place(split, done.get(split, 0), stop - start)
                    for first in range(start, stop, step):
                        part = batch.slice(first, min(step, stop - first))
                        write_whole(opened[0], self.rows(part), self.offset + (at + first - start) * row_nbytes)
                    done[split] = done.get(split, 0) + stop - start
                    if self.labels:
                        part = batch.columns[-1].slice(start, stop - start)
                        labels = self.labels.of(part, self.uri)
                        write_whole(opened[1], labels, self.labels.offset + at * labels.itemsize)
            for descriptor in opened:
                os.fsync(descriptor)
        finally:
            for descriptor in opened:
                os.close(descriptor)
        return done

    def _place(self, split: Split, done: int, n_rows: int) -> int:
        """The row of the matrix where the next ``n_rows`` of a split go."""
        first, total = self.places.get(split, (0, 0))
        if done + n_rows > total:
            raise changed(self.uri)
        return first + done

    def rows(self, batch: pa.RecordBatch) -> np.ndarray:
        """Rows of the matrix."""
        out = np.empty((batch.num_rows, self.width), self.dtype)
        start = 0
        with np.errstate(over="ignore", invalid="ignore"):
            for field, column in zip(self.fields, batch.columns[KEY:], strict=False):
                block = out[:, start : start + field.width]
                if field.categories:
                    self._categories(field, column, block)
                else:
                    self._numbers(field, column, block)
                start += field.width
        return out

    def _numbers(self, field: Field, column: Array, block: np.ndarray) -> None:
        values, lengths = entries(field.feature, column)
        where: slice | np.ndarray = slice(None)
        if lengths is not None:
            if not np.isin(lengths, (-1, field.width)).all():
                raise changed(self.uri)
            if column.null_count:  # a null list: all its entries are
                where = lengths >= 0
                block[~where] = self._filling()
        n_rows = block.shape[0] if isinstance(where, slice) else int(where.sum())
        table = numbers(field.feature, values).reshape(n_rows, field.width)
        if values.null_count:
            nulls = missing(values).reshape(n_rows, field.width)
            table = np.where(nulls, self._filling(), table.astype(block.dtype))
        if isinstance(where, slice):
            np.copyto(block, table, casting="unsafe")
        else:
            block[where] = table

    def _categories(self, field: Field, column: Array, block: np.ndarray) -> None:
        codes = pc.index_in(column, value_set=pa.array(field.categories, column.type))
        nulls = missing(column)
        if codes.null_count > column.null_count:
            raise changed(self.uri)
        found = pc.fill_null(codes, 0).to_numpy(zero_copy_only=False)
        if field.one_hot:
            block[:] = 0
            block[np.arange(len(found)), found] = 1
        else:
            block[:, 0] = found
        if nulls.any():
            block[nulls] = self._filling()

    def _filling(self) -> float:
        if self.fill is None:
            raise changed(self.uri)
        return self.fill


def splits(columns: list[Array]) -> Iterator[tuple[Split, slice]]:
    """Each stretch of neighbouring rows that are of one split, and where it is in the batch."""
    keys = [column.to_numpy() for column in columns[:KEY]]
    if not len(keys[0]):
        return
    cuts = np.flatnonzero((np.diff(keys[0]) != 0) | (np.diff(keys[1]) != 0)) + 1
    for start, stop in zip([0, *cuts], [*cuts, len(keys[0])], strict=True):
        yield (int(keys[0][start]), int(keys[1][start])), slice(int(start), int(stop))


def reported(
    work: Callable[[Iterator[pa.RecordBatch]], Any], batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """One row for the driver: what the work gave, or a user's mistake, which Spark would wrap in pages of Java."""
    settle_worker()
    try:
        answer = work(batches)
    except DataError as error:
        answer = error
    except OSError as error:  # of the disk: Spark reads the table in another process
        if error.errno not in CAUSES:
            raise
        answer = DataError(f"the target on {socket.gethostname()}: cannot be written: {CAUSES[error.errno]}.")
    yield pa.record_batch({"report": pa.array([pickle.dumps(answer)], pa.binary())})


def open_shared(path: str) -> int:
    """A file that the driver has made, opened for writing in place."""
    try:
        return os.open(path, os.O_WRONLY)
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: the worker on {socket.gethostname()} does not see it. Write to a folder that the driver and all "
            f"workers share."
        ) from error


def changed(uri: str) -> DataError:
    return DataError(f"{uri}: changed while it was read. Convert it again when nothing writes to it.")
