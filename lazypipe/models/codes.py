"""Codes of few numbers: an autoencoder's beside the scores of principal components, on the same rows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lazypipe.checkpoint import local_folder
from lazypipe.checks import require_restart, whole
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
    """Mean squared error of an entry of ``others`` that is given back from n codes, for each n of ``n_components``.

    An autoencoder and PCA learn from the same rows X (n_rows, n_columns); ``others`` (any number of rows, the same
    columns) are what both are judged by. ``stack`` holds the layers before the codes: for each n one more machine is
    trained on top of it, and then the autoencoder that they make. ``options`` are those of ``Autoencoder``. With
    ``state`` checkpoints of n codes are kept in the folder ``{state}-codes-n``; ``restart`` forgets them first.

    Returns a dict for each n, rising: ``n_components``, and the errors ``autoencoder`` and ``PCA``, of entries divided
    by the ``divide_by`` of the stack. Raises ConfigError for an n that X has no components for, and what ``PCA.fit``
    and ``Autoencoder.fit`` raise; the passes and the memory are theirs.
    """
    require_restart(state, restart)
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
            model.fit(matrix, stack=stack, engine=running, state=place, restart=restart)
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
