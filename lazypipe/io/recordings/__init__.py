"""Recordings read in place: ``open_recording`` finds the format. A new format is one file and one line here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from lazypipe.errors import ConfigError, DataError
from lazypipe.io.array import ArrayMatrix, require_unmasked
from lazypipe.io.formats import Format, format_of, suffixes_of, unknown
from lazypipe.io.matrix import Matrix
from lazypipe.io.recordings.options import Options, checked_options
from lazypipe.io.recordings.recording import Recording
from lazypipe.io.recordings.several import checked_starts, join
from lazypipe.io.recordings.shapes import flat_shape, frame_shape, sample_dtype
from lazypipe.io.sources import require_there
from lazypipe.stores import AnyPath, Place, path_of

__all__ = ["Recording", "open_recording"]

Source: TypeAlias = str | AnyPath | np.ndarray | Recording | Matrix


# Of each, ``module`` has ``open_source(path, options) -> Recording``.
RAW = Format("raw", (".bin", ".dat", ".raw"))
FORMATS = (
    RAW,
    Format("spikeglx", (".meta",)),
    Format("npy", (".npy",), magic=b"\x93NUMPY"),
    Format("arrow", (".arrow", ".feather", ".ipc"), magic=b"ARROW1"),
    Format("hdf5", (".h5", ".hdf5", ".nwb"), magic=b"\x89HDF\r\n\x1a\n", needs=("neuro", "h5py")),
    Format("zarr", (".zarr",), inside=("zarr.json", ".zarray", ".zgroup")),
)


def open_recording(
    source: Source | Sequence[Source],
    *,
    sampling_rate: float | None = None,
    n_channels: int | None = None,
    dtype: DTypeLike | None = None,
    column: str | None = None,
    starts: Sequence[int] | None = None,
    offset_bytes: int = 0,
    gain: ArrayLike | None = None,
    offset: ArrayLike | None = None,
    unit: str | None = None,
) -> Recording:
    """Open a recording (time first) for reading where it lies; only metadata are read.

    ``source`` is a path or an address (``file://``, ``s3://``) of raw binary (.bin, .dat, .raw), SpikeGLX (the .bin
    or .meta of a pair), .npy, Arrow IPC, HDF5, NWB or Zarr; an array; an open matrix or recording; or a list of these,
    which become one recording of as many stretches. Arrays are (n,), (n, channels), or movies
    (n, height, width). Of an NWB series with timestamps all of these are read, 8 MiB at a time.

    - ``sampling_rate`` (Hz), ``n_channels`` and ``dtype`` are needed for raw binary, which begins after
      ``offset_bytes``. Where the file tells them they may be left out, and have to agree.
    - ``column`` names the dataset of an HDF5 file, the series of an NWB file, the array of a Zarr group, or the
      column of an Arrow table, where there are several.
    - ``starts`` says at which sample of the common clock each source of a list begins; without it each follows
      the one before without pause.
    - ``gain`` and ``offset``, a number or one for each channel: values in ``unit`` are stored * gain + offset.
      A gain takes the place of gain, offset and unit in the file.

    Raises ConfigError for an option that is missing or makes no sense, and DataError, in one line, for all
    that cannot be read as a recording or disagrees with the options.
    """
    options = checked_options(sampling_rate, n_channels, dtype, column, offset_bytes, gain, offset, unit)
    several = isinstance(source, (list, tuple))
    sources: list[Any] = list(source) if several else [source]  # type: ignore[arg-type]
    if not sources:
        raise DataError("[]: an empty list of sources. Pass at least one.")
    recordings = [_open_one(one, options) for one in sources]
    if not several and starts is None:
        return recordings[0]
    return join(recordings, None if starts is None else checked_starts(starts, len(sources)))


def _open_one(source: Any, options: Options) -> Recording:
    if isinstance(source, Recording):
        if not options.given:
            return source
        recording = source
    elif isinstance(source, np.ndarray):
        recording = _from_array(source)
    elif isinstance(source, (str, Path, Place)):
        path = path_of(source)
        require_there(path)
        module = _format_of(path, options).load(__name__)
        return options.applied_to(module.open_source(path, options))
    elif all(hasattr(source, name) for name in ("uri", "shape", "dtype", "open", "reader_nbytes")):
        if source.sparse:
            raise DataError(f"{source.uri}: holds sparse rows. A recording is dense: convert it.")
        recording = Recording(source)
    else:
        raise DataError(
            f"{type(source).__name__}: cannot be opened as a recording. "
            f"Pass a path, an array, what open_recording returned, or a list of these."
        )
    options.refuse(recording.uri, "what is open already", "column", "offset_bytes")
    return options.applied_to(recording)


def _from_array(array: np.ndarray) -> Recording:
    """An array (n,), (n, channels) or (n, height, width); one that is not contiguous may be copied."""
    require_unmasked(array, "<array>")
    sample_dtype(array.dtype, "<array>")
    matrix = ArrayMatrix(array.reshape(flat_shape(array.shape, "<array>")))
    return Recording(matrix, sample_shape=frame_shape(array.shape))


def _format_of(path: AnyPath, options: Options) -> Format:
    found, known = format_of(path, FORMATS), suffixes_of(FORMATS)
    if found is not None:
        return found
    if path.is_dir():
        raise DataError(f"{path}: is a directory without a Zarr array. Pass that, or files ({known}), as a list.")
    if options.n_channels is not None and options.dtype is not None:
        return RAW
    raise ConfigError(
        f"{path}: {unknown(path)}. Known formats: {known}; of raw binary pass n_channels=, dtype= and sampling_rate=."
    )
