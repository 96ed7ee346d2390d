"""A matrix whose entries are filled, centred, scaled and weighted as they are read: never a copy of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.blocks import Span, compute_dtype
from lazypipe.io.matrix import Matrix, OverStored, Unmapped


@dataclass(frozen=True, eq=False)
class Prepared(OverStored):
    """``root (x - centre) gain`` of a matrix, in its compute dtype.

    ``centre`` (n_columns,) is taken off dense entries only: a sparse matrix keeps its zeros, and what is
    due is left to the statistics, which know ``rest``. With ``fills`` a NaN becomes the centre, so zero.
    Rows whose ``root`` (n_rows,), the square root of a weight, is zero are zero whatever they hold.
    """

    matrix: Matrix
    centre: np.ndarray | None = None
    gain: np.ndarray | None = None
    root: np.ndarray | None = None
    filling: np.ndarray | None = None  # (n_columns,) in place of NaN

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape

    @property
    def dtype(self) -> np.dtype:
        return compute_dtype(self.matrix.dtype)

    @contextmanager
    def open(self, mapped: bool = False) -> Iterator[Any]:
        """A reader of the prepared entries, for one thread."""
        with self.matrix.open(mapped) as reader:
            yield (PreparedRows if self.sparse else PreparedReader)(self, reader)

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """That of the source, these vectors, and masks of a block."""
        vectors = sum(v.nbytes for v in (self.centre, self.gain, self.root, self.filling) if v is not None)
        mask = 0 if self.filling is None else n_rows * n_columns
        return self.matrix.reader_nbytes(n_rows, n_columns) + vectors + mask

    def fingerprint(self) -> str:
        """Of the source and of all that is done to it."""
        digest = hashlib.sha256(self.matrix.fingerprint().encode())
        for vector in (self.centre, self.gain, self.root, self.filling):
            digest.update(b"-" if vector is None else np.ascontiguousarray(vector).tobytes())
        return digest.hexdigest()[:16]


class PreparedReader(Unmapped):
    """Reads rectangles of a dense matrix and prepares them in place."""

    def __init__(self, source: Prepared, reader: Any):
        self._source = source
        self._reader = reader

    def read(self, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Fill ``out`` (len(rows), len(columns)), of the compute dtype, with that rectangle, prepared."""
        self._reader.read(rows, columns, out)
        source = self._source
        if source.filling is not None:
            gaps = np.isnan(out)
            if gaps.any():
                out[gaps] = np.broadcast_to(source.filling[columns.slice], out.shape)[gaps]
        if source.centre is not None:
            np.subtract(out, source.centre[columns.slice], out=out)
        if source.gain is not None:
            np.multiply(out, source.gain[columns.slice], out=out)
        if source.root is not None:
            root = source.root[rows.slice]
            np.multiply(out, root[:, None], out=out)
            if not root.all():
                out[root == 0] = 0  # NaN times zero is NaN


class PreparedRows:
    """Reads rows of a sparse matrix and prepares their entries."""

    def __init__(self, source: Prepared, reader: Any):
        self._source = source
        self._reader = reader

    def read_rows(self, rows: Span, dtype: np.dtype) -> Any:
        """Those rows as CSR, filled, scaled and weighted; not centred."""
        block = self._reader.read_rows(rows, dtype)
        source = self._source
        if source.filling is not None:
            gaps = np.isnan(block.data)
            block.data[gaps] = source.filling[block.indices[gaps]]
        if source.gain is not None:
            block.data *= source.gain[block.indices]
        if source.root is not None:
            root = np.repeat(source.root[rows.slice], np.diff(block.indptr))
            block.data *= root
            block.data[root == 0] = 0
        return block
