"""Locally optimal block gradient ascent of the Rayleigh quotient.

The gradient of the Rayleigh quotient at a unit vector u is 2 (C u - λ u). Each pass multiplies the
gradients of p vectors at once by C, then maximises exactly, by Rayleigh-Ritz, over the span of the
vectors, their gradients and the directions of earlier passes. With the last direction only this is
the three-term method of Knyazev ("Toward the optimal preconditioned eigensolver", SISC 2001); the
more earlier directions memory allows, the nearer it comes to block Lanczos, and the fewer passes it
needs. When the span is full it restarts from the current vectors and the previous ones.
"""

from __future__ import annotations

import numpy as np

from lazypipe.models.pca.ritz import Apply, OnPass, Ritz, descending, orthonormal_to, relative_norms

MIN_BLOCKS = 3  # the vectors, their last directions, their gradients
MAX_BLOCKS = 12


def block_gradient(
    apply: Apply,
    start: np.ndarray,
    n_components: int,
    tol: float,
    max_passes: int,
    max_blocks: int,
    rank: int,
    on_pass: OnPass,
) -> Ritz:
    """The leading pairs of C to relative residual ``tol``, or as far as ``max_passes`` go.

    ``start`` (n, p) is orthonormal, p ≥ n_components; ``rank`` is the dimension of the space that C
    acts on (n, less one where the columns are centred over n); memory: 2 n p max_blocks + 8 n p floats.
    """
    n, p = start.shape
    k = n_components
    span = np.empty((n, max_blocks * p))
    image = np.empty((n, max_blocks * p))  # C @ span
    used = 0
    block = start
    previous = np.zeros((0, p))  # the last Ritz vectors in coordinates of the span
    for n_passes in range(1, max_passes + 1):
        width = block.shape[1]
        span[:, used : used + width] = block
        image[:, used : used + width] = apply(block)
        used += width
        values, coordinates = descending(span[:, :used].T @ image[:, :used])
        values, coordinates = values[:p], coordinates[:, :p]
        vectors = span[:, :used] @ coordinates
        gradient = image[:, :used] @ coordinates - vectors * values
        residual = float(relative_norms(gradient[:, :k], values[:k]).max())
        on_pass(residual, values[:k])
        if residual <= tol or n_passes == max_passes or used >= rank:
            break
        if used + p > span.shape[1]:
            padded = np.zeros((used, p))
            padded[: len(previous)] = previous
            kept = np.linalg.qr(np.hstack([coordinates, padded]))[0]
            span[:, : 2 * p] = span[:, :used] @ kept
            image[:, : 2 * p] = image[:, :used] @ kept
            coordinates = kept.T @ coordinates
            used = 2 * p
        previous = coordinates
        block = orthonormal_to(span[:, :used], gradient[:, : rank - used])
    others = np.column_stack([values[k:], np.linalg.norm(gradient[:, k:], axis=0)])
    return Ritz(values[:k], vectors[:, :k], gradient[:, :k], others)
