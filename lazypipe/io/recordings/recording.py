"""What a recording is: a matrix of samples x channels, a rate, and where on the clock its stretches lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lazypipe.blocks import Span
from lazypipe.io.matrix import Matrix


@dataclass(frozen=True, eq=False)
class Recording:
    """Samples of one or many channels, in one stretch or in several with gaps between them.

    The rows of ``matrix`` are the samples that were kept, stretch after stretch; ``stretches`` says where each
    lies on the recording's own clock, in samples. Without gaps the two are the same. Cheap to pickle: no data.
    """

    matrix: Matrix  # (n_rows, at least n_channels), in the dtype stored
    sampling_rate: float | None = None  # Hz; None where nothing told it
    stretches: tuple[Span, ...] = ()  # on the clock, in order, apart or touching; () for one from 0
    channels: Span | None = None  # columns that are channels: a sync word beside them is none; None for all
    sample_shape: tuple[int, ...] | None = None  # (height, width) of a movie; None for (n_channels,)
    gain: np.ndarray | None = None  # (n_channels,) or (): units a count; None for 1
    offset: np.ndarray | None = None  # likewise, in units, added after the gain
    unit: str = ""  # of values times gain: "µV", "V"; "" where nothing told it
    start_time: float = 0.0  # seconds at sample 0, on the clock that spike times in seconds use

    @property
    def uri(self) -> str:
        return self.matrix.uri

    @property
    def dtype(self) -> np.dtype:
        """As stored."""
        return self.matrix.dtype

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """Each stretch on the clock, in samples."""
        return self.stretches or (Span(0, self.matrix.shape[0]),)

    @cached_property
    def columns(self) -> Span:
        """Of the matrix, that are channels."""
        return self.channels or Span(0, self.matrix.shape[1])

    @property
    def n_channels(self) -> int:
        return len(self.columns)

    @property
    def n_samples(self) -> int:
        """Samples that were kept."""
        return self.matrix.shape[0]

    @property
    def stop(self) -> int:
        """The sample, on the clock, after the last one."""
        return self.spans[-1].stop

    @property
    def shape(self) -> tuple[int, ...]:
        """(n_samples, n_channels), or (n_samples, height, width)."""
        return (self.n_samples, *(self.sample_shape or (self.n_channels,)))

    def __repr__(self) -> str:
        rate = "" if self.sampling_rate is None else f", {self.sampling_rate:g} Hz"
        parts = "" if len(self.spans) == 1 else f", {len(self.spans)} stretches"
        return f"Recording({self.uri!r}, {' x '.join(f'{n:,}' for n in self.shape)} {self.dtype}{rate}{parts})"
