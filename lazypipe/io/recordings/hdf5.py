"""Recordings in HDF5 files: a dataset (n,), (n, channels), or a movie (n, height, width).

Where the dataset lies in one piece, uncompressed, HDF5 is asked only for its place in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lazypipe.errors import DataError
from lazypipe.io.matrix import Matrix
from lazypipe.io.raw_rows import SCRATCH_NBYTES, RawRowsMatrix, Segment
from lazypipe.io.recordings.chunked import UNREADABLE, ChunkedMatrix
from lazypipe.io.recordings.nwb import open_series
from lazypipe.io.recordings.options import Options
from lazypipe.io.recordings.rates import rate_among
from lazypipe.io.recordings.recording import Recording
from lazypipe.io.recordings.shapes import choose, flat_shape, frame_shape, is_samples, sample_dtype
from lazypipe.io.sources import one_line
