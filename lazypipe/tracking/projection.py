"""The code of a logged model, which MLflow copies into it: fill and centre new rows, and project them.

It imports nothing of lazypipe, so that the model loads wherever MLflow and numpy are.
"""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np


class Projection(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow is untyped
    """Rows (n, D), a DataFrame or an array, to their scores (n, k) on the components.

    A NaN is filled as in the fit, where that filled any; else it makes the scores of its row NaN.
    """

    def load_context(self, context: Any) -> None:
        self.mean = np.load(context.artifacts["mean"])
        self.components = np.load(context.artifacts["components"])
        self.scale = np.load(context.artifacts["scale"]) if "scale" in context.artifacts else 1.0
        self.fill = np.load(context.artifacts["fill"]) if "fill" in context.artifacts else None

    # MLflow turns most type hints into a signature, and warns where there is none; not at np.ndarray.
    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> np.ndarray:
        rows = np.asarray(model_input)
        if rows.ndim != 2 or rows.shape[1] != len(self.mean):
            raise ValueError(f"rows have shape {rows.shape}; expected (n, {len(self.mean)}).")
        if self.fill is not None:
            rows = np.where(np.isnan(rows), self.fill, rows)
        return ((rows - self.mean) / self.scale) @ self.components.T


mlflow.models.set_model(Projection())
