"""Codes of few numbers: an autoencoder's beside the scores of principal components, on the same rows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lazypipe.checkpoint import local_folder
from lazypipe.checks import whole
from lazypipe.engines import Engine, engine_or_own
from lazypipe.errors import ClosePairWarning, ConfigError
from lazypipe.io import open_matrix
from lazypipe.models.pca import PCA
from lazypipe.nets.autoencoder import Autoencoder
from lazypipe.nets.components import component_errors
from lazypipe.nets.stack import Stack


def code_errors(
    X: Any,
    others: Any,
    n_components: Sequence[int],
    *,
    stack: Stack,
    engine: Engine | None = None,
    state: str | Path | None = None,
    restart: bool = False,
    **options: Any,
) -> list[dict[str, Any]]:
    """Mean squared error of an entry of ``others``, given back from so many codes, by number of codes.

    Both learn from X (n, D). ``stack`` holds the layers before the codes; for each number one more machine is trained
    on top, and the autoencoder that it makes. ``options`` are those of ``Autoencoder``; checkpoints of n codes are kept
    in the folder ``{state}-codes-n``. A dict a number: ``n_components``, ``autoencoder``, ``PCA``; entries are divided
    by the ``divide_by`` of the stack, and for PCA centred by their means.
    """
    matrix, judged = open_matrix(X), open_matrix(others)
    wanted = checked_codes(n_components, matrix.shape)
    with engine_or_own(engine) as running:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ClosePairWarning)  # what they span is asked for, not each of them
            pca = PCA(n_components=wanted[-1]).fit(matrix, engine=running)
        of_components = component_errors(judged, pca.mean_, pca.components_) / stack.divide_by**2
        rows = []
        for n in wanted:
            model = Autoencoder((*stack.units[1:], n), divide_by=stack.divide_by, **options)
            place = None if state is None else Path(f"{local_folder(state)}-codes-{n}")
            model.fit(matrix, stack=stack, engine=running, state=place, restart=restart and place is not None)
            error = model.reconstruction_error(judged)
            rows.append({"n_components": n, "autoencoder": error, "PCA": float(of_components[n - 1])})
    return rows


def checked_codes(n_components: Sequence[int], shape: tuple[int, int]) -> list[int]:
    """The numbers of codes, rising; ConfigError for one that principal components of such rows cannot have."""
    wanted = sorted({whole(n, "codes") for n in n_components})
    most = min(shape[0] - 1, shape[1])
    if not wanted or wanted[-1] > most:
        raise ConfigError(f"codes: {', '.join(map(str, wanted)) or 'none'}. Give 1 to {most:,} of them.")
    return wanted
