"""Kilosort and phy folders: spike_times.npy, spike_clusters.npy, and the labels that somebody gave to clusters.

params.py is Python, and never run: samples are samples, and nothing else in it is needed.
"""

from __future__ import annotations

import numpy as np

from lazypipe.errors import DataError
from lazypipe.io.sources import one_line
from lazypipe.io.spikes.npy import load_npy
from lazypipe.io.spikes.options import Options
from lazypipe.io.spikes.spikes import Spikes
from lazypipe.io.spikes.trains import from_events
from lazypipe.io.spikes.unit_ids import checked_ids, encode
from lazypipe.stores import AnyPath

CLUSTERS = ("spike_clusters.npy", "spike_templates.npy")  # as curated in phy; else as Kilosort found them
LABELS = ("cluster_group.tsv", "cluster_groups.csv", "cluster_KSLabel.tsv")  # phy's, old phy's, Kilosort's own


def read(path: AnyPath, options: Options) -> Spikes:
    """Spikes of a folder; with ``groups``, those of the clusters so labelled, sorted by id.

    Raises DataError that lists what is there where the clusters, the labels or a group are missing.
    """
    uri = str(path)
    clusters = next((path / name for name in CLUSTERS if (path / name).exists()), None)
    if clusters is None:
        there = ", ".join(sorted(found.name for found in path.glob("*.npy")))
        raise DataError(
            f"{uri}: has no {' or '.join(CLUSTERS)}, only {there}. "
            f"Pass {path / 'spike_times.npy'} to read all its spikes as one unit's."
        )
    wanted = options.units if options.groups is None else _labelled(path, options.groups)
    units = encode(checked_ids(_flat(load_npy(clusters)), str(clusters), DataError))
    times = _flat(load_npy(path / "spike_times.npy"))
    return from_events(times, units, options.clock(uri), uri, wanted, lambda row: f"entry {row:,} of spike_times.npy")


def _flat(array: np.ndarray) -> np.ndarray:
    """MATLAB writes vectors as columns, (n, 1)."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _labelled(path: AnyPath, groups: tuple[str, ...]) -> np.ndarray:
    """(n_units,) int64: the clusters with one of the labels, sorted."""
    file = next((path / name for name in LABELS if (path / name).exists()), None)
    if file is None:
        raise DataError(f"{path}: has no {', '.join(LABELS)} to tell groups. Choose with units= instead.")
    labels = _labels(file)
    missing = [group for group in groups if group not in labels.values()]
    if missing:
        there = ", ".join(repr(label) for label in sorted(set(labels.values()))) or "nothing"
        raise DataError(f"{file}: labels no cluster {missing[0]!r}, only {there}. Choose groups= among them.")
    return np.array(sorted(cluster for cluster, label in labels.items() if label in groups), dtype=np.int64)


def _labels(file: AnyPath) -> dict[int, str]:
    """Cluster -> label, of a table with a header and tabs between its first two columns."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({one_line(error)}). Save it again from phy.") from error
    labels = {}
    for number, line in enumerate(lines[1:], start=2):
        cells = [cell.strip() for cell in line.split("\t")]
        if not line.strip():
            continue
        if len(cells) < 2 or not cells[0].isascii() or not cells[0].isdigit():
            raise DataError(
                f"{file}: line {number}: {line[:40]!r} is no cluster, tab and label. Save it again from phy."
            )
        labels[int(cells[0])] = cells[1]
    return labels
