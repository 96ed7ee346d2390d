"""A dense result a row a sample, written by tasks that each own some of the rows: Zarr, or Parquet parts."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lazypipe.atomic import replacing
from lazypipe.blocks import Span
from lazypipe.building import SHARED
from lazypipe.errors import DataError
from lazypipe.io.kinds import attributes_of_kind
from lazypipe.io.matrix import Matrix
from lazypipe.stores import AnyPath, Place, path_of

SUFFIXES = (".zarr", ".parquet")
KIND = "lazypipe scores"
PART = re.compile(r"part-\d{6,}\.parquet")
LEFT = re.compile(r"\.part-\d{6,}\.parquet\.partial-")  # as ``replacing`` names what it writes


@dataclass(frozen=True)
class RowStore:
    """A folder at ``path`` for (n_rows, n_columns) float64, ``chunk`` rows a chunk or part; of ``suffix``.

    Cheap to pickle. Chunks are written in any order, by any process, and twice without harm.
    """

    path: str
    suffix: str
    n_rows: int
    n_columns: int
    chunk: int

    def create(self) -> None:
        """The empty store."""
        if self.suffix == ".zarr":
            import zarr

            zarr.create_array(
                self.path,
                shape=(self.n_rows, self.n_columns),
                chunks=(self.chunk, self.n_columns),
                dtype="float64",
                compressors=None,
                fill_value=float("nan"),
                attributes={"kind": KIND},
            )
        else:
            Path(self.path).mkdir()

    def write(self, rows: Span, values: np.ndarray) -> None:
        """The rows of one chunk: ``rows`` begin at a multiple of ``chunk``."""
        if not os.path.isdir(self.path):
            raise DataError(f"{self.path}: a worker does not see this folder. {SHARED}")
        if self.suffix == ".zarr":
            import zarr

            zarr.open_array(self.path, mode="r+")[rows.slice] = values
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            index = rows.start // self.chunk
            table = pa.table({f"component_{j + 1}": values[:, j] for j in range(values.shape[1])})
            with replacing(Path(self.path) / f"part-{index:06d}.parquet", overwrite=True) as partial:
                pq.write_table(table, partial)


def is_store(path: AnyPath) -> bool:
    """Whether a folder is a store of this kind, and holds nothing else but what a killed worker left of a part."""
    if not path.is_dir():
        return False
    if path.suffix == ".parquet":
        names = [child.name for child in path.iterdir() if not LEFT.match(child.name)]
        return bool(names) and all(PART.fullmatch(name) for name in names)
    try:
        attributes_of_kind(path, KIND, "is no store of scores")
    except DataError:
        return False
    return True


def suffix_of(path: AnyPath) -> str:
    """The format that a path asks for; DataError for another one."""
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: cannot write {path.suffix or 'no suffix'!r}. Use {' or '.join(SUFFIXES)}.")
    return path.suffix


def is_source(path: AnyPath, matrix: Matrix) -> bool:
    """Whether an output would take the place of what it is computed from."""
    own = path_of(matrix.uri)
    if isinstance(path, Place) or isinstance(own, Place):
        return path == own
    return own.exists() and path.exists() and own.samefile(path)
