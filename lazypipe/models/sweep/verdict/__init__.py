"""What a sweep says, from its curves alone: would more rows, more regularization or a bigger model help?

Error is 1 - accuracy, or 1 - R² in a regression; scores are means over seeds. Noise: the binomial standard error of
the validation rows (``error * sqrt(2 / n)`` in a regression, as of normal residuals), and the seeds' own.

More rows: the errors of each size's best strength are fitted by ``error(n) = a + b n^-c``, a, b >= 0, 0 < c <= 1
(Cortes, Jackel, Solla, Vapnik & Denker, "Learning curves: asymptotic values and rate of convergence", NIPS 1993; it
holds for deep networks too, but for the smallest sizes: Hestness et al., arXiv 1712.00409, 2017). Intervals are of
the profile likelihood.

``whole`` is what people call. ``curves`` are the scores as arrays, ``noise`` is how certain they are, ``power_law`` is
fitted to them, ``judgements`` makes of both the ``parts`` of a verdict, and ``words`` tells these.
"""

from lazypipe.models.sweep.verdict.whole import Verdict, verdict_of

__all__ = ["Verdict", "verdict_of"]
