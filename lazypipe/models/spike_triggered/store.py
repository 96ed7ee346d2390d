"""Averages larger than memory: a Zarr group that tasks write tile by tile, and that a killed run goes on with.

Zarr is loaded where it is used: averages in memory do without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lazypipe.atomic import replacing
from lazypipe.building import SHARED
from lazypipe.errors import DataError
from lazypipe.io.kinds import attributes_of_kind
from lazypipe.models.spike_triggered.planning import Tile
from lazypipe.stores import AnyPath

KIND = "lazypipe spike-triggered average"
AXES = ("unit", "lag", "channel")


class TileCounts(NamedTuple):
    """Of one tile: what its windows were."""

    used: np.ndarray  # (n_units, 1 or n_lags)
    not_finite: np.ndarray  # (n_units,)


def create(
    path: Path,
    shape: tuple[int, int, int],
    tiles: tuple[Tile, ...],
    dtype: str,
    spread: bool,
    attributes: dict[str, Any],
) -> None:
    """An empty store for ``mean`` and ``std`` of that shape, in chunks of one unit and the channels of a tile."""
    import zarr
    from zarr.codecs import Crc32cCodec

    width = len(tiles[0].channels)
    for name in ("mean", "std") if spread else ("mean",):
        zarr.create_array(
            str(path / name),
            shape=shape,
            chunks=(1, shape[1], width),
            dtype=dtype,
            compressors=[Crc32cCodec()],
            fill_value=float("nan"),
            dimension_names=AXES,
            overwrite=True,
        )
    zarr.create_group(str(path), attributes={"kind": KIND, **attributes})


def attributes_of(path: AnyPath) -> dict[str, Any]:
    """Those of a store. Raises DataError where there is none."""
    return attributes_of_kind(path, KIND, "holds no spike-triggered averages")


@dataclass(frozen=True)
class Store:
    """A store that is being filled, as tasks see it."""

    path: Path

    def counts_of(self, tile: Tile) -> TileCounts | None:
        """Of a tile that is there already."""
        try:
            with np.load(self._marker(tile), allow_pickle=False) as file:
                return TileCounts(file["used"], file["not_finite"])
        except FileNotFoundError:
            return None

    def write(self, tile: Tile, mean: np.ndarray, std: np.ndarray | None, counts: TileCounts) -> None:
        """The arrays of a tile, and then the counts, which say that it is there."""
        import zarr

        if not self.path.is_dir():
            raise DataError(f"{self.path}: a worker does not see this folder. {SHARED}")
        for name, values in (("mean", mean), ("std", std)):
            if values is not None:
                array = zarr.open_array(str(self.path / name), mode="r+")
                for i in range(len(values)):
                    array[tile.units.start + i, :, tile.channels.slice] = values[i]
        with replacing(self._marker(tile), overwrite=True) as partial, open(partial, "wb") as file:
            np.savez(file, allow_pickle=False, used=counts.used, not_finite=counts.not_finite)

    def close(self, tiles: tuple[Tile, ...], vectors: dict[str, np.ndarray]) -> None:
        """Write what belongs to the whole, and forget the tiles."""
        import zarr
        from zarr.codecs import Crc32cCodec

        for name, values in vectors.items():
            is_text = values.dtype.kind == "U"
            array = zarr.create_array(
                str(self.path / name),
                shape=values.shape,
                chunks=tuple(max(1, n) for n in values.shape),
                dtype=str if is_text else values.dtype,
                compressors=None if is_text else [Crc32cCodec()],
                overwrite=True,
            )
            array[...] = values
        for tile in tiles:
            self._marker(tile).unlink(missing_ok=True)

    def _marker(self, tile: Tile) -> Path:
        return self.path / f".tile-{tile.units.start}-{tile.channels.start}"


def opened(path: AnyPath, name: str) -> Any:
    """An array of a store, read where it is indexed."""
    import zarr

    from lazypipe.io.zarr import store_of

    return zarr.open_array(store_of(path / name), mode="r")
