"""SpikeGLX: a ``.bin`` of int16 and the ``.meta`` beside it, which tells channels, rate and gains.

Keys are those of SpikeGLX's "Metadata" pages; volts are count * range / largest count / gain of the channel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.recordings.options import Options
from lazypipe.io.recordings.raw_file import raw_matrix
from lazypipe.io.recordings.recording import Recording
from lazypipe.io.sources import one_line
from lazypipe.sizes import MIB
from lazypipe.stores import AnyPath

# Of imDatPrb_type, as in SpikeGLX's ProbeTable. Neuropixels 1.0 and their kin, and 3A, which have no type, have in
# imroTbl (channel bank reference AP-gain LF-gain ...) for each channel; others one gain for all.
GAIN_IN_HEADER = 1110  # its imroTbl begins (1110,columns,reference,AP-gain,LF-gain,filter)
FIXED = {21: (80.0, 8192), 24: (80.0, 8192)}  # gain, and largest count where imMaxInt is missing
FIXED |= dict.fromkeys((2003, 2004, 2005, 2006, 2013, 2014, 2020, 2021, 2022, 2300), (100.0, 2048))
MICROVOLTS = 1e6


@dataclass(frozen=True)
class Stream:
    """The keys of one kind of device; the last ``n_words`` kinds among its ``counts`` are digital or sync words."""

    rate: str
    counts: str
    n_words: int
    range: str
    largest: str
    default_largest: float


STREAMS = {
    "imec": Stream("imSampRate", "snsApLfSy", 1, "imAiRangeMax", "imMaxInt", 512),
    "nidq": Stream("niSampRate", "snsMnMaXaDw", 1, "niAiRangeMax", "niMaxInt", 32768),
    "obx": Stream("obSampRate", "snsXaDwSy", 2, "obAiRangeMax", "obMaxInt", 32768),
}


@dataclass(frozen=True)
class Meta:
    """The entries of a ``.meta`` file, by key without the ``~``."""

    path: AnyPath
    entries: dict[str, str]

    def text(self, key: str) -> str:
        """An entry; DataError where there is none."""
        if key not in self.entries:
            raise DataError(f"{self.path}: has no {key}. Copy the .meta file again.")
        return self.entries[key]

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number; DataError where the entry is none."""
        if default is not None and key not in self.entries:
            return default
        try:
            value = float(self.text(key))
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise self.wrong(key) from error
        if not (np.isfinite(value) and value > 0):
            raise self.wrong(key)
        return value

    def counts(self, key: str) -> list[int]:
        """Whole numbers, separated by commas."""
        if not re.fullmatch(r"\d+(,\d+)*", self.text(key)):
            raise self.wrong(key)
        return [int(count) for count in self.text(key).split(",")]

    def wrong(self, key: str) -> DataError:
        return DataError(f"{self.path}: {key}={self.entries[key]!r:.80} makes no sense. Copy the .meta file again.")


def open_source(path: AnyPath, options: Options) -> Recording:
    """Open a pair by its ``.meta``. DataError where it is not SpikeGLX's, or its ``.bin`` is missing."""
    meta = meta_of(path)
    if meta is None:
        raise DataError(f"{path}: is no SpikeGLX metadata: it has no nSavedChans. Pass the recording itself.")
    binary = path.with_suffix(".bin")
    if not binary.exists():
        raise DataError(f"{path}: the recording beside it, {binary.name}, is missing. Copy both to one folder.")
    return open_pair(binary, meta, options)


def meta_of(path: AnyPath) -> Meta | None:
    """The entries of a ``.meta`` file; None where SpikeGLX did not write it."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = file.read(16 * MIB).splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}). Check its rights.") from error
    entries = dict(line.strip().lstrip("~").split("=", 1) for line in lines if "=" in line)
    return Meta(path, entries) if "nSavedChans" in entries else None


def open_pair(path: AnyPath, meta: Meta, options: Options) -> Recording:
    """The recording in ``path`` as ``meta`` tells it, in µV; digital and sync words are no channels.

    Raises DataError where the two do not belong together, or the gains are unknown and none was given.
    """
    options.refuse(str(path), "SpikeGLX", "column", "offset_bytes")
    kind = meta.entries.get("typeThis") or _kind(meta)
    if kind not in STREAMS:
        raise meta.wrong("typeThis")
    stream = STREAMS[kind]
    n_saved, counts = int(meta.number("nSavedChans")), meta.counts(stream.counts)
    if sum(counts) != n_saved or len(counts) <= stream.n_words:
        raise meta.wrong(stream.counts)
    n_channels = sum(counts[: -stream.n_words])
    if n_channels == 0:
        raise DataError(f"{path}: has only digital words, {stream.counts}={meta.text(stream.counts)}: no channels.")
    size, told = path.stat().st_size, meta.number("fileSizeBytes", default=path.stat().st_size)
    if size != told:
        raise DataError(
            f"{path}: has {size:,} bytes, {meta.path.name} says fileSizeBytes={int(told):,}. Copy both again."
        )
    matrix = raw_matrix(path, n_saved, np.dtype("<i2"))
    gain = None
    if options.gain is None:
        _, largest = FIXED.get(_probe(meta), (None, stream.default_largest))
        volts = meta.number(stream.range) / meta.number(stream.largest, largest)
        gain = volts * MICROVOLTS / _amplification(kind, meta, counts)
    return Recording(
        matrix,
        meta.number(stream.rate),
        channels=Span(0, n_channels) if n_channels < n_saved else None,
        gain=gain,
        unit="" if gain is None else "µV",
    )


def _kind(meta: Meta) -> str:
    """The device, where an early version did not write it."""
    return next((kind for kind, stream in STREAMS.items() if stream.counts in meta.entries), "imec")


def _probe(meta: Meta) -> int:
    """The type of probe; 0 where none is told, as by 3A, and where the device is none."""
    return int(meta.number("imDatPrb_type")) if meta.entries.get("imDatPrb_type", "0") != "0" else 0


def _amplification(kind: str, meta: Meta, counts: list[int]) -> np.ndarray:
    """(n_channels,) by how much each channel was amplified before it was sampled."""
    if kind == "obx":
        return np.ones(counts[0])
    if kind == "nidq":
        n_mn, n_ma, n_xa = counts[:3]
        mn, ma = (meta.number(key) if n else 1.0 for key, n in (("niMNGain", n_mn), ("niMAGain", n_ma)))
        return np.repeat([mn, ma, 1.0], [n_mn, n_ma, n_xa])
    n_ap, n_lf = counts[:2]
    ap, lf = _probe_gains(meta)
    if isinstance(ap, float):
        gains = np.repeat([ap, lf], [n_ap, n_lf])
    else:
        saved_ap, saved_lf = _saved(meta, n_ap, n_lf)
        gains = np.array([ap.get(c, 0.0) for c in saved_ap] + [lf.get(c, 0.0) for c in saved_lf])
    if not gains.all():
        raise meta.wrong("imroTbl")
    return gains


def _saved(meta: Meta, n_ap: int, n_lf: int) -> tuple[list[int], list[int]]:
    """The numbers, on the probe, of the AP and of the LF channels that were saved."""
    subset = meta.entries.get("snsSaveChanSubset", "all")
    acquired = meta.counts("acqApLfSy") if "acqApLfSy" in meta.entries else None
    if re.fullmatch(r"\d+(:\d+)?(,\d+(:\d+)?)*", subset) and acquired is not None:
        ids: list[int] = []
        for part in subset.split(","):
            first, _, last = part.partition(":")
            ids += range(int(first), min(int(last or first) + 1, sum(acquired)))
        n_first, n_both = acquired[0], sum(acquired[:2])
        ap = [i for i in ids if i < n_first] if n_ap else []  # an .lf.bin may list what its .ap.bin holds
        lf = [i - n_first for i in ids if n_first <= i < n_both] if n_lf else []
        if (len(ap), len(lf)) == (n_ap, n_lf):
            return ap, lf
        raise meta.wrong("snsSaveChanSubset")
    return list(range(n_ap)), list(range(n_lf))


def _probe_gains(meta: Meta) -> tuple[Any, Any]:
    """The AP and the LF gain of a probe: of each channel, by its number, or one for all."""
    probe = _probe(meta)
    if probe == GAIN_IN_HEADER:
        found = re.match(r"\(\d+,\d+,\d+,(\d+),(\d+)", meta.text("imroTbl"))
        if found is None:
            raise meta.wrong("imroTbl")
        return float(found[1]), float(found[2])
    if probe == 0 or 1000 <= probe < 2000:
        rows = re.findall(r"\((\d+) \d+ -?\d+ (\d+) (\d+)[ \d]*\)", meta.text("imroTbl"))
        return {int(c): float(ap) for c, ap, _ in rows}, {int(c): float(lf) for c, _, lf in rows}
    if "imChan0apGain" not in meta.entries and probe not in FIXED:
        raise DataError(
            f"{meta.path}: the gains of probe type {probe} are unknown. Pass gain= in µV a count, or gain=1 for counts."
        )
    gain = meta.number("imChan0apGain", FIXED.get(probe, (None, None))[0])
    return gain, gain  # these have one band; an .lf.bin of theirs was filtered out of it
