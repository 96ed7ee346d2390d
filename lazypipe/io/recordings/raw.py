"""Raw binary recordings: samples x channels back to back; without a ``.meta`` nothing tells how many."""

from __future__ import annotations

from lazypipe.errors import ConfigError
from lazypipe.io.recordings.options import Options
from lazypipe.io.recordings.raw_file import raw_matrix
from lazypipe.io.recordings.recording import Recording
from lazypipe.io.recordings.spikeglx import meta_of, open_pair
from lazypipe.stores import AnyPath


def open_source(path: AnyPath, options: Options) -> Recording:
    """Open a ``.bin``, ``.dat`` or ``.raw`` file: by SpikeGLX's ``.meta`` beside it, else by what was told.

    ConfigError where ``n_channels``, ``dtype`` or ``sampling_rate`` is missing, DataError where the file does
    not hold whole samples.
    """
    beside = path.with_suffix(".meta")
    meta = meta_of(beside) if beside.exists() else None
    if meta is not None:
        return open_pair(path, meta, options)
    missing = [name for name in ("n_channels", "dtype", "sampling_rate") if getattr(options, name) is None]
    if missing:
        raise ConfigError(
            f"{path}: raw binary without SpikeGLX's .meta does not tell its {' and '.join(missing)}. "
            f"Pass {', '.join(f'{name}=' for name in missing)}."
        )
    options.refuse(str(path), "raw binary", "column")
    assert options.n_channels is not None
    assert options.dtype is not None
    return Recording(raw_matrix(path, options.n_channels, options.dtype, options.offset_bytes), options.sampling_rate)
