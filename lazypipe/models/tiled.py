"""A covariance that lies on disk in tiles: any part of it is read back, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

from lazypipe.errors import DataError
from lazypipe.io import tile_store
from lazypipe.stores import AnyPath, path_of


class TiledCovariance:
    """A covariance on disk: ``tiled[rows, columns]`` reads any part of it, symmetric, and nothing else.

    ``shape`` (n_columns, n_columns), ``dtype``, ``mean`` (n_columns,), ``n_rows``, ``weight``, ``ddof``.
    Rows and columns are slices, integers or arrays of them. Raises DataError for a torn or missing tile.
    """

    def __init__(self, path: str | AnyPath):
        self.path = path_of(path)
        attributes = tile_store.attributes_of(self.path)
        missing = {"n", "tile", "dtype", "n_rows", "weight", "ddof"} - attributes.keys()
        if missing:
            raise DataError(f"{self.path}: its attributes lack {', '.join(sorted(missing))}. {tile_store.AGAIN}")
        n = int(attributes["n"])
        self.shape = (n, n)
        self.tile = int(attributes["tile"])
        self.dtype = np.dtype(attributes["dtype"])
        self.n_rows = int(attributes["n_rows"])
        self.weight = float(attributes["weight"])
        self.ddof: float = attributes["ddof"]

    @property
    def mean(self) -> np.ndarray:
        """(n_columns,) float64. Raises DataError where a part of it is missing."""
        for i in range(-(-self.shape[0] // self.tile)):
            if not tile_store.is_whole(path := tile_store.mean_path(self.path, i), 8 * self.tile):
                raise DataError(f"{path}: these means are torn or missing. {tile_store.AGAIN}")
        return tile_store.read_array(self.path, "mean", slice(None))

    def diagonal(self) -> np.ndarray:
        """The variances (n_columns,)."""
        count = -(-self.shape[0] // self.tile)
        return np.concatenate([self._tile(i, i).diagonal().copy() for i in range(count)])[: self.shape[0]]

    def __getitem__(self, at: Any) -> np.ndarray:
        rows, columns = _pair(at)
        row_at, column_at = (np.atleast_1d(np.arange(self.shape[0])[part]) for part in (rows, columns))
        out = np.empty((len(row_at), len(column_at)), self.dtype)
        for i in np.unique(row_at // self.tile):
            down = np.flatnonzero(row_at // self.tile == i)
            for j in np.unique(column_at // self.tile):
                across = np.flatnonzero(column_at // self.tile == j)
                tile = self._tile(min(i, j), max(i, j))
                in_row, in_column = row_at[down] - i * self.tile, column_at[across] - j * self.tile
                part = tile[np.ix_(in_row, in_column)] if i <= j else tile[np.ix_(in_column, in_row)].T
                out[np.ix_(down, across)] = part
        scalar = (
            np.ndim(rows) == 0 and not isinstance(rows, slice),
            np.ndim(columns) == 0 and not isinstance(columns, slice),
        )
        return out[(0 if scalar[0] else slice(None), 0 if scalar[1] else slice(None))]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it in memory; as NumPy asks, ValueError where that must not be a copy."""
        if copy is False:
            raise ValueError(f"{self.path}: a covariance on disk is no array without a copy. Leave out copy=False.")
        whole = self[:, :]
        return whole if dtype is None else whole.astype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def _tile(self, i: int, j: int) -> np.ndarray:
        return tile_store.read_tile(tile_store.tile_path(self.path, i, j), self.tile, self.dtype)

    def __repr__(self) -> str:
        return f"TiledCovariance({str(self.path)!r}, shape={self.shape}, tile={self.tile})"


def _pair(at: Any) -> tuple[Any, Any]:
    """Rows and columns of an index, as NumPy takes one of a matrix."""
    parts = list(at) if isinstance(at, tuple) else [at]
    if any(part is None for part in parts) or sum(part is Ellipsis for part in parts) > 1:
        raise IndexError("a covariance has two axes: index it by [rows, columns]")
    if any(part is Ellipsis for part in parts):
        i = next(i for i, part in enumerate(parts) if part is Ellipsis)
        parts[i : i + 1] = [slice(None)] * (3 - len(parts))
    parts += [slice(None)] * (2 - len(parts))
    if len(parts) != 2:
        raise IndexError(f"a covariance has two axes, but {len(parts)} were indexed")
    return parts[0], parts[1]
