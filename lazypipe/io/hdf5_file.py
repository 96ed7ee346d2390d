"""HDF5 files, and objects of a store, as h5py opens them."""

from __future__ import annotations

from typing import Any

import h5py

from lazypipe.stores import AnyPath, Place


def hdf5_file(path: AnyPath, **options: Any) -> h5py.File:
    """The file, open for reading; ``options`` are h5py's, of which those that lock files mean nothing in a store."""
    if not isinstance(path, Place):
        return h5py.File(path, "r", **options)
    from lazypipe.stores.file import RangedFile

    options.pop("locking", None)
    return h5py.File(RangedFile(path), "r", **options)
