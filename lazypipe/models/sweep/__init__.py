"""Regularization × sample size: would more data, more regularization or a bigger model help?

``running`` is what people call; ``grid`` checks what is asked, ``lazypipe.io.examples`` what is given; ``planning``
makes tasks of both, ``task`` is one of them, ``records`` keeps what is done, ``pruning`` gives strengths up;
``cells``, ``result`` and ``verdict`` are what comes out. A model is one file (``logistic``, ``sgd``, ``mlp``,
``deep``, ``dbn``, ``ridge``) that fits all strengths of a prefix (``rows``) and hands back what ``fitted`` says.
``logistic`` has its coordinates in ``space``, its iteration in ``lbfgs``, its preconditioners in ``curvature``;
``mlp``, ``deep`` and ``dbn`` share ``networks``, which trains those of ``lazypipe.nets``, and all that take
mini-batches share ``minibatches``.
"""

from lazypipe.models.sweep.result import RegularizationSweep
from lazypipe.models.sweep.running import plan_regularization_sweep, regularization_sweep

__all__ = ["RegularizationSweep", "plan_regularization_sweep", "regularization_sweep"]
