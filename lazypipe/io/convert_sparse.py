"""Sparse matrices and svmlight text rewritten as sparse rows in .arrow or .parquet, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from lazypipe.atomic import replacing
from lazypipe.blocks import Span
from lazypipe.errors import DataError, MemoryPlanError
from lazypipe.io.csr import Entries, RowsReader, checked_sparse_shape
from lazypipe.io.csr_writer import csr_writer
from lazypipe.io.matrix import Matrix
from lazypipe.io.svmlight import PARSED_FACTOR, TextRows, read_text, scan, to_entries
from lazypipe.progress import Progress, StageDone, StageStarted, TaskDone
from lazypipe.sizes import KIB, MIB
from lazypipe.stores import AnyPath

SPARSE_SUFFIXES = (".arrow", ".parquet")
BLOCK_NBYTES = 32 * MIB  # of a record batch or row group: what a reader of compressed rows has to hold
TEXT_BLOCK_NBYTES = 8 * MIB
SMALLEST_TEXT_BLOCK = 64 * KIB
FOOTER_NBYTES = 64 * KIB  # room for the schema and the footer in the check of free space
BATCH_NBYTES = KIB  # and for what describes a record batch
SORT_NBYTES = 16  # that sorting holds for an entry


def convert_sparse(matrix: Matrix, path: AnyPath, overwrite: bool, memory: int, progress: Progress) -> None:
    """Write sparse rows to ``path`` (.arrow, .parquet) by blocks of rows, sorting those that are not.

    Raises as ``convert`` does, and DataError for the faults that reading finds.
    """
    if path.suffix not in SPARSE_SUFFIXES:
        raise DataError(
            f"{path}: sparse rows are not written to {path.suffix}, which would store every zero. "
            f"Use {' or '.join(SPARSE_SUFFIXES)}."
        )
    n_rows, n_columns = matrix.shape
    step = _rows_per_block(matrix, memory)
    n_tasks = -(-n_rows // step)
    title, began = f"convert to {path.name}", time.perf_counter()
    # Two lists' ends are 4 bytes a row each; Parquet is compressed, by how much is not known before.
    room = matrix.block_nbytes(n_rows, n_columns, matrix.dtype.itemsize) + 8 * n_rows + n_tasks * BATCH_NBYTES
    with replacing(path, overwrite, room + FOOTER_NBYTES if path.suffix == ".arrow" else None) as partial:
        progress.emit(StageStarted(title, n_tasks, matrix.nbytes))
        reader: Any  # a SparseReader, which the type of Matrix.open does not say
        with csr_writer(partial, path.suffix, n_columns, matrix.dtype) as writer, matrix.open() as reader:
            read = reader.read_sorted if isinstance(reader, RowsReader) else reader.read_rows
            for index in range(n_tasks):
                rows = read(Span(index * step, min((index + 1) * step, n_rows)), matrix.dtype)
                writer.write(Entries(rows.indptr, rows.indices, rows.data))
                del rows
                progress.emit(TaskDone(index + 1, n_tasks))
    progress.emit(StageDone(title, time.perf_counter() - began))


def _rows_per_block(matrix: Matrix, memory: int) -> int:
    n_rows, n_columns = matrix.shape

    def block_nbytes(step: int, itemsize: int = matrix.dtype.itemsize) -> int:
        return matrix.block_nbytes(step, n_columns, itemsize)

    def needed(step: int) -> int:
        """The block as read and as sorted, and what sorting takes."""
        sorting = block_nbytes(step, SORT_NBYTES) - block_nbytes(step, 0)
        return 2 * block_nbytes(step) + sorting + matrix.reader_nbytes(step, n_columns)

    step = n_rows
    while step > 1 and (needed(step) > memory or block_nbytes(step) > BLOCK_NBYTES):
        step = -(-step // 2)
    if needed(step) > memory:
        raise MemoryPlanError(
            f"{matrix.uri}: converting needs {needed(step):,} bytes for a block of {step:,} rows, "
            f"memory is {memory:,}. Raise memory."
        )
    return step


def convert_svmlight(
    source: AnyPath,
    path: AnyPath,
    overwrite: bool,
    memory: int,
    n_columns: int | None,
    zero_based: bool | None,
    progress: Progress,
) -> None:
    """Write the rows of a text to ``path`` (.arrow, .parquet) with their labels, a block of lines at a time.

    Raises as ``convert`` does, and DataError with the line for all that is malformed.
    """
    if path.suffix not in SPARSE_SUFFIXES:
        raise DataError(f"{path}: sparse rows are not written to {path.suffix}. Use {' or '.join(SPARSE_SUFFIXES)}.")
    if not source.is_file():
        raise DataError(f"{source}: no such file. Check the path.")
    block_nbytes = min(TEXT_BLOCK_NBYTES, memory // PARSED_FACTOR)
    if block_nbytes < SMALLEST_TEXT_BLOCK:
        least = SMALLEST_TEXT_BLOCK * PARSED_FACTOR
        raise MemoryPlanError(f"{source}: converting text needs {least:,} bytes, memory is {memory:,}. Raise memory.")

    def blocks(title: str) -> Iterator[TextRows]:
        size, began = source.stat().st_size, time.perf_counter()
        n_tasks = max(1, -(-size // block_nbytes))
        progress.emit(StageStarted(title, n_tasks, size))
        for rows in read_text(source, block_nbytes):
            yield rows
            progress.emit(TaskDone(min(n_tasks, -(-rows.position // block_nbytes)), n_tasks))
        progress.emit(StageDone(title, time.perf_counter() - began))

    with replacing(path, overwrite) as partial:
        if n_columns is None or zero_based is None:
            contents = scan(blocks(f"scan {source.name}"))
            zero_based = contents.largest >= 0 and contents.smallest == 0 if zero_based is None else zero_based
            n_columns = contents.largest + int(zero_based) if n_columns is None else n_columns
            checked_sparse_shape(contents.n_rows, n_columns, str(source))
        first, n_rows = int(not zero_based), 0
        with csr_writer(partial, path.suffix, n_columns, np.dtype(np.float64), labelled=True) as writer:
            for rows in blocks(f"convert to {path.name}"):
                writer.write(to_entries(rows, first, n_columns, source), rows.labels)
                n_rows += len(rows.lines)
        checked_sparse_shape(n_rows, n_columns, str(source))
