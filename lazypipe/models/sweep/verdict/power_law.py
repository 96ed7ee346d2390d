"""The power law of a learning curve, fitted to the errors of some sizes, with intervals of its profile likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

from lazypipe.models.sweep.verdict.noise import CHI2

EXPONENTS = np.geomspace(0.02, 1, 1000)
FEWEST_SIZES = 4  # one more than the power law has parameters


class PowerLaw:
    """``error(n) = a + b n^-c`` by weighted least squares: for each ``c`` of a grid, ``a, b >= 0`` in closed form."""

    def __init__(self, sizes: np.ndarray, errors: np.ndarray, variances: np.ndarray) -> None:
        self.sizes, self.errors, self.variances, self.freedom = sizes, errors, variances, len(sizes) - 3
        self._largest = float(sizes[-1])  # the unit of n, for the sake of rounding
        w = self._weights = 1 / variances
        x = self._x = (sizes / self._largest) ** -EXPONENTS[:, None]  # (exponents, sizes)
        centred = x - ((x @ w) / w.sum())[:, None]
        b = np.maximum((centred * errors) @ w / (centred**2 @ w), 0)
        a = (errors - b[:, None] * x) @ w / w.sum()
        b = np.where(a < 0, (x * errors) @ w / (x**2 @ w), b)
        a = np.maximum(a, 0)
        misfits = (errors - a[:, None] - b[:, None] * x) ** 2 @ w
        best = int(np.argmin(misfits))
        self.chi2, self.a, self._b, self.c = (float(v[best]) for v in (misfits, a, b, EXPONENTS))
        self.b = self._b * self._largest**self.c

    def error(self, n: float) -> float:
        return self.a + self._b * (n / self._largest) ** -self.c

    def error_interval(self, n: float) -> tuple[float, float]:
        """Of the error at ``n``."""
        z = (n / self._largest) ** -EXPONENTS
        x, w = self._x - z[:, None], self._weights

        def misfit(error: float) -> float:  # of error + b (x - z)
            away = self.errors - error
            most = np.divide(error, z, out=np.full(len(z), np.inf), where=z > 0)  # above it a < 0
            b = np.clip((x * away) @ w / (x**2 @ w), 0, most)
            return float(((away - b[:, None] * x) ** 2 @ w).min())

        return self._profile(misfit, self.error(n))

    def gain_interval(self, times: float, shared: float) -> tuple[float, float]:
        """Of what so many times the largest size takes off the error, all sizes being off by as much as ``shared``."""
        w = self._weights

        def misfit(gain: float) -> float:
            away = self.errors - (gain / (1 - times**-EXPONENTS))[:, None] * self._x
            a = np.maximum(away @ w / w.sum(), -shared)
            return float(((away - a[:, None]) ** 2 @ w).min())

        return self._profile(misfit, self._b * (1 - times**-self.c))

    def _profile(self, misfit: Callable[[float], float], middle: float) -> tuple[float, float]:
        """All that fits as well as chi² allows, the other parameters free; scaled where the law itself fits badly."""
        step, allowed = math.sqrt(float(self.variances.min())), self.chi2 + CHI2 * max(1.0, self.chi2 / self.freedom)

        def excess(value: float) -> float:
            return misfit(value) - allowed

        low, high = max(0.0, middle - step), middle + step
        while low > 0 and excess(low) < 0:
            low = max(0.0, middle - 2 * (middle - low))
        while excess(high) < 0:
            high = middle + 2 * (high - middle)
        if low < middle and excess(low) > 0:
            low = brentq(excess, low, middle, rtol=1e-6)
        return float(low), float(brentq(excess, middle, high, rtol=1e-6))
