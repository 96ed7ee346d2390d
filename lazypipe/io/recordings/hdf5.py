"""Recordings in HDF5 files: a dataset (n,), (n, channels), or a movie (n, height, width); NWB is nwb's."""

from __future__ import annotations

import h5py

from lazypipe.errors import DataError
from lazypipe.io.recordings.h5_dataset import h5_file, matrix_of
from lazypipe.io.recordings.nwb import is_nwb, open_series
from lazypipe.io.recordings.options import Options
from lazypipe.io.recordings.rates import rate_among
from lazypipe.io.recordings.recording import Recording
from lazypipe.io.recordings.shapes import choose, frame_shape, is_samples
from lazypipe.stores import AnyPath


def open_source(path: AnyPath, options: Options) -> Recording:
    """Open the dataset ``column`` of an HDF5 file, or its only one; its rate is an attribute, if any.

    The attributes of the dataset are asked first, then those of its group and of the file. Raises DataError
    for damaged files, files with several datasets of samples, and unfit shapes and dtypes.
    """
    uri = str(path)
    options.refuse(uri, "HDF5", "offset_bytes")
    with h5_file(path) as file:
        if is_nwb(file):
            return open_series(path, file, options)
        if path.suffix.lower() == ".nwb":
            raise DataError(f"{uri}: is an HDF5 file, but not of NWB: it has no nwb_version. Rename it to .h5.")
        dataset = file[_name(file, options.column, uri)]
        matrix = matrix_of(path, dataset)
        places = (dataset, dataset.parent, file)
        rate = next((rate for place in places if (rate := rate_among(place.attrs, uri)) is not None), None)
        return Recording(matrix, rate, sample_shape=frame_shape(dataset.shape))


def _name(file: h5py.File, column: str | None, uri: str) -> str:
    found: dict[str, bool] = {}

    def visit(name: str, node: h5py.Dataset | h5py.Group) -> None:
        if isinstance(node, h5py.Dataset):
            found[name] = is_samples(node.shape or (), node.dtype)

    if column is not None and isinstance(file.get(column), h5py.Dataset):
        return column  # one that only a link leads to is not visited
    file.visititems(visit)
    return choose(found, column, uri, ("dataset", "datasets"))
