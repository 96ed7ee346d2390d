"""Any matrix rewritten in the formats that iterated passes read fastest.

Dense, gzipped IDX, and folders of images: .npy, .arrow, or .zarr in panels. Sparse, and svmlight text: .arrow or
.parquet, by convert_sparse.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from lazypipe.atomic import replacing
from lazypipe.blocks import Span
from lazypipe.errors import DataError, MemoryPlanError
from lazypipe.io import FORMATS, open_matrix
from lazypipe.io.convert_sparse import SPARSE_SUFFIXES, convert_sparse, convert_svmlight
from lazypipe.io.formats import format_of
from lazypipe.io.idx import is_idx, open_idx
from lazypipe.io.images import ImageFolder, is_image_folder, labels_path, open_images
from lazypipe.io.matrix import Matrix
from lazypipe.io.svmlight import is_svmlight
from lazypipe.progress import Progress, StageDone, StageStarted, TaskDone
from lazypipe.sizes import KIB, parse_bytes
from lazypipe.stores import AnyPath, Place, path_of

DENSE_SUFFIXES = (".npy", ".arrow", ".zarr")
HEADER_NBYTES = 64 * KIB  # room for headers and footers in the check of free space
IMAGES_AT_ONCE = 4096  # decoded between two reports of progress: a fifth of a second for small ones


def convert(
    source: str | AnyPath | np.ndarray | Matrix,
    target: str | AnyPath,
    *,
    column: str | None = None,
    overwrite: bool = False,
    memory: str | float = "256MiB",
    panel_columns: int | None = None,
    n_columns: int | None = None,
    zero_based: bool | None = None,
    colour: bool = False,
    progress: Progress | None = None,
) -> AnyPath:
    """Write ``source`` to ``target``, in one pass over the data by row blocks, in at most ``memory``.

    A dense matrix goes to ``.npy``; ``.arrow`` with one fixed-size list column; or ``.zarr`` in panels,
    column stripes that are each contiguous on disk, of ``panel_columns`` columns (about 32 MiB unless
    given): for wide matrices that are read from a cold or remote disk. Same shape, dtype and bits. A sparse
    one goes to ``.arrow`` or ``.parquet`` with list columns ``indices`` and ``values``: its rows are sorted
    if they are not, and its other columns are left out. It is never made dense.

    svmlight text (.svm, .svmlight, .libsvm, also .gz) goes where sparse matrices go, its labels to a column
    ``label`` (float64), which ``open_matrix(target, column="label")`` opens. ``n_columns`` is by default the
    largest index and one; ``zero_based`` says what indices count from, by default 1 unless an index 0
    occurs. Unless both are given the text is read twice.

    IDX files, plain or gzipped, go where dense matrices go: (n, the product of the other dimensions).

    So does a folder of images of one size, a row an image: height x width numbers of grey (uint8), with ``colour``
    height x width x 3 of red, green and blue. Each of its subfolders is a class: beside the target,
    ``<stem>.labels.npy`` then holds the name of each row's class, as text. The rows of classes come in the order of a
    hash of ``class/name``: shuffled, but always the same, so that any first rows are a fair sample of all. Without
    subfolders there are no labels, and rows come in the order of the names.

    ``column`` is that of ``open_matrix``. The target appears whole or not at all, with its labels. Returns its path.
    Raises DataError if it exists and not ``overwrite``, if the disk has no room, for a suffix that does not suit
    the source, and for malformed text and images; MemoryPlanError if a row block, or a panel, does not fit ``memory``.
    """
    path = path_of(target)
    progress = progress or Progress()
    memory = parse_bytes(memory)
    if path.suffix not in DENSE_SUFFIXES + SPARSE_SUFFIXES:
        raise DataError(
            f"{path}: cannot write {path.suffix or 'no suffix'!r}. Use .npy, .arrow or .zarr, or .parquet for "
            f"sparse rows."
        )
    if panel_columns is not None and path.suffix != ".zarr":
        raise DataError(f"{path}: only .zarr is written in panels. Leave out panel_columns={panel_columns}.")
    if is_svmlight(source):
        if column is not None:
            raise DataError(f"{source}: svmlight text has no named columns. Leave out column={column!r}.")
        if colour:
            raise DataError(f"{source}: is no folder of images. Leave out colour.")
        text = path_of(str(source))
        convert_svmlight(text, path, overwrite, memory, n_columns, zero_based, progress)
        return path
    matrix, labels = _opened(source, column, colour)
    if n_columns is not None or zero_based is not None:
        raise DataError(f"{matrix.uri}: is no svmlight text. Leave out n_columns and zero_based.")
    if colour and not isinstance(matrix, ImageFolder):
        raise DataError(f"{matrix.uri}: is no folder of images. Leave out colour.")
    if matrix.sparse:
        convert_sparse(matrix, path, overwrite, memory, progress)
    else:
        _convert_dense(matrix, labels, path, overwrite, memory, panel_columns, progress)
    return path


def _opened(
    source: str | AnyPath | np.ndarray | Matrix, column: str | None, colour: bool
) -> tuple[Matrix, np.ndarray | None]:
    """What open_matrix opens, and what is only converted: gzipped IDX, and a folder of images with its labels."""
    if isinstance(source, (str, Path, Place)):
        path = path_of(source)
        if is_idx(path):
            return open_idx(path, column), None
        if path.is_dir() and format_of(path, FORMATS) is None and is_image_folder(path):
            return open_images(path, column, colour)
    return open_matrix(source, column), None


def _convert_dense(
    matrix: Matrix,
    labels: np.ndarray | None,
    path: AnyPath,
    overwrite: bool,
    memory: int,
    panel_columns: int | None,
    progress: Progress,
) -> None:
    if path.suffix not in DENSE_SUFFIXES:
        raise DataError(
            f"{path}: a dense matrix is not written to {path.suffix}. Use one of {', '.join(DENSE_SUFFIXES)}."
        )
    write: Callable[[Path, Matrix, Iterator[np.ndarray]], None] = _write_npy if path.suffix == ".npy" else _write_arrow
    width = 0
    if path.suffix == ".zarr":
        from lazypipe.io.panels import panel_width, write_panels  # zarr takes a third of a second to import

        width = panel_width(matrix, panel_columns, memory)
        write = partial(write_panels, width=width)
    n_rows, n_columns = matrix.shape
    step = _rows_per_block(matrix, memory, width)
    if isinstance(matrix, ImageFolder):
        step = min(step, IMAGES_AT_ONCE)
    n_bytes = n_rows * n_columns * matrix.dtype.itemsize
    padding = n_rows * (-n_columns % width) * matrix.dtype.itemsize if width else 0
    n_tasks = -(-n_rows // step)
    began = time.perf_counter()
    title = f"convert to {path.name}"
    room = n_bytes + padding + HEADER_NBYTES + n_tasks * KIB + (0 if labels is None else labels.nbytes)
    # Entered first, moved into place last: where the matrix stands, its labels do too.
    with replacing(path, overwrite, room) as target, _labels_beside(path, overwrite, labels):
        progress.emit(StageStarted(title, n_tasks, n_bytes))
        write(target, matrix, _blocks(matrix, step, n_tasks, progress))
    progress.emit(StageDone(title, time.perf_counter() - began))


@contextmanager
def _labels_beside(path: AnyPath, overwrite: bool, labels: np.ndarray | None) -> Iterator[None]:
    if labels is None:
        yield
        return
    with replacing(labels_path(path), overwrite) as target:
        with open(target, "wb") as file:
            np.save(file, labels, allow_pickle=False)
        yield


def _rows_per_block(matrix: Matrix, memory: int, width: int) -> int:
    """Rows a block, such that the block, the reader and a copy of ``width`` columns fit ``memory``."""
    n_rows, n_columns = matrix.shape
    row_nbytes = n_columns * matrix.dtype.itemsize
    step = max(1, min(n_rows, memory // (2 * row_nbytes)))

    def needed() -> int:
        return step * (row_nbytes + width * matrix.dtype.itemsize) + matrix.reader_nbytes(step, n_columns)

    while step > 1 and needed() > memory:
        step //= 2
    if needed() > memory:
        raise MemoryPlanError(
            f"{matrix.uri}: converting needs {needed():,} bytes for a block of {step:,} rows, "
            f"memory is {memory:,}. Raise memory."
        )
    return step


def _blocks(matrix: Matrix, step: int, n_tasks: int, progress: Progress) -> Iterator[np.ndarray]:
    """Each row block (rows, n_columns) in the matrix's dtype, in one reused buffer."""
    n_rows, n_columns = matrix.shape
    buffer = np.empty((step, n_columns), matrix.dtype)
    with matrix.open() as reader:
        for index in range(n_tasks):
            rows = Span(index * step, min((index + 1) * step, n_rows))
            out = buffer[: len(rows)]
            reader.read(rows, Span(0, n_columns), out)
            yield out
            progress.emit(TaskDone(index + 1, n_tasks))


def _write_npy(path: Path, matrix: Matrix, blocks: Iterator[np.ndarray]) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(npy_header(matrix.shape, matrix.dtype))
        for block in blocks:
            write_whole(file.fileno(), block)


def _write_arrow(path: Path, matrix: Matrix, blocks: Iterator[np.ndarray]) -> None:
    import pyarrow as pa

    n_columns = matrix.shape[1]
    schema = pa.schema([("features", pa.list_(pa.from_numpy_dtype(matrix.dtype), n_columns))])
    with open(path, "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for block in blocks:
            values = pa.array(block.reshape(-1))
            column = pa.FixedSizeListArray.from_arrays(values, n_columns)
            writer.write_batch(pa.record_batch([column], schema=schema))


def npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """The first bytes of a C-order ``.npy`` file."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(shape)}
    )
    return head.getvalue()


def write_whole(descriptor: int, values: np.ndarray, offset: int | None = None) -> None:
    """Write all bytes of a C-contiguous array, at ``offset`` or where the file stands."""
    raw = values.reshape(-1).view(np.uint8)
    done = 0
    while done < raw.nbytes:
        rest = raw[done:].data
        done += os.write(descriptor, rest) if offset is None else os.pwrite(descriptor, rest, offset + done)
