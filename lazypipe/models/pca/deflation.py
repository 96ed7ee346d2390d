"""One component at a time by gradient ascent, subtracting what was found: the textbook method.

It needs hundreds to thousands of passes where the block methods need ten, because each component
converges at the rate of the gap to the next. It is here to learn from and to measure against.
"""

from __future__ import annotations

import numpy as np

from lazypipe.models.pca.ritz import Apply, OnPass, Ritz, descending, orthonormal_to


def deflation(
    apply: Apply,
    start: np.ndarray,
    tol: float,
    max_passes: int,
    step: float | None,
    on_pass: OnPass,
) -> Ritz:
    """A leading pair of C for each column of ``start`` (n, k), one after another.

    ``step`` is the length of a step along the gradient in units of 1/λ₁ (λ₁ as the first component
    has it); None takes the step that is best on each line, by Rayleigh-Ritz over the vector and its
    gradient. ``max_passes``, two a component or more, are shared: each may use its part of what is left.
    """
    n, k = start.shape
    found, images = np.zeros((n, 0)), np.zeros((n, 0))
    values: list[float] = []
    left = max_passes
    for j in range(k):
        share = left // (k - j)
        used = 1
        vector = orthonormal_to(found, start[:, j : j + 1])
        image = apply(vector)
        while True:
            value = float((vector.T @ image)[0, 0])
            gradient = image - vector * value
            gradient -= found @ (found.T @ gradient)  # the deflated matrix C - Σ λ v vᵀ
            residual = float(np.linalg.norm(gradient)) / max(value, np.finfo(float).tiny)
            on_pass(residual, np.array([*values, value]))
            if residual <= tol or used >= share:
                break
            if step is None:
                ahead = orthonormal_to(np.hstack([found, vector]), gradient)
                plane = np.hstack([vector, ahead])
                plane_image = np.hstack([image, apply(ahead)])
                _, best = descending(plane.T @ plane_image)
                vector, image = plane @ best[:, :1], plane_image @ best[:, :1]
            else:
                largest = values[0] if values else value
                vector = orthonormal_to(found, vector + (step / largest) * gradient)
                image = apply(vector)
            used += 1
        left -= used
        values.append(value)
        found, images = np.hstack([found, vector]), np.hstack([images, image])
    # Rayleigh-Ritz over all that was found: no further pass.
    ritz, turn = descending(found.T @ images)
    vectors, images = found @ turn, images @ turn
    return Ritz(ritz, vectors, images - vectors * ritz, np.zeros((0, 2)))
