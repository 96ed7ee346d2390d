"""What of a score is noise: the standard error that the validation rows give it, and the seeds' own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.stats import chi2

LEVEL = 0.95  # of every interval, and of what is told apart from noise
CHI2 = float(chi2.ppf(LEVEL, 1))
NORMAL = math.sqrt(CHI2)


def standard_error(score: Any, n_validation: int, regression: bool) -> np.ndarray:
    """Of the validation rows; binomial with two rows more of either kind, since no score is certain.

    In a regression that of normal residuals.
    """
    n = max(1, n_validation)
    if regression:
        return np.maximum(1 - np.asarray(score), 1e-9) * math.sqrt(2 / n)
    share = (np.clip(score, 0, 1) * n + 2) / (n + 4)  # Agresti & Coull (1998)
    return np.sqrt(share * (1 - share) / (n + 4))


def seed_error(scores: np.ndarray) -> float:
    """The standard error of a mean over seeds, as seeds tell it; 0 where there is only one."""
    scores = scores[np.isfinite(scores)]
    return float(scores.std(ddof=1)) / math.sqrt(len(scores)) if len(scores) > 1 else 0.0
