"""Principal components of matrices too wide or too long for memory.

``estimator`` is what people call; ``choice`` plans; ``fitting`` goes from a choice to components.
``sides`` (``short_side``, ``row_side``, ``long_side``) turn passes over the data into products;
``gradient``, ``deflation`` and ``direct`` are the solvers; ``journal`` keeps the passes, ``certificates``
bounds the errors, ``scores`` transforms.
"""

from lazypipe.models.pca.estimator import PCA, plan_pca, plan_transform

__all__ = ["PCA", "plan_pca", "plan_transform"]
