"""Principal components of matrices too wide or too long for memory.

``estimator`` is what people call; ``sides`` turns passes over the data into products on the short or
the long side; ``gradient``, ``deflation`` and ``direct`` are the solvers; ``choice`` plans them.
"""

from lazypipe.models.pca.estimator import PCA, plan_pca

__all__ = ["PCA", "plan_pca"]
