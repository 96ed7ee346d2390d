"""The code of a logged network, which MLflow copies into the model: rows in, classes, probabilities or values out.

It imports nothing of lazypipe, and no torch, so that the model loads wherever MLflow and numpy are. Weights lie in
.npy files, nothing is pickled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np

ROWS = 4096  # that go through the layers at a time: hidden units of all rows may not fit in memory


def _relu(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, 0, out=values)


def _tanh(values: np.ndarray) -> np.ndarray:
    return np.tanh(values, out=values)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    values *= 0.5  # as tanh, which does not overflow
    np.tanh(values, out=values)
    values += 1
    values *= 0.5
    return values


def _softmax(values: np.ndarray) -> np.ndarray:
    values -= values.max(axis=1, keepdims=True)
    np.exp(values, out=values)
    values /= values.sum(axis=1, keepdims=True)
    return values


def _linear(values: np.ndarray) -> np.ndarray:
    return values


ACTIVATIONS = {"relu": _relu, "tanh": _tanh, "sigmoid": _sigmoid, "linear": _linear}
OUTPUTS = {"softmax": _softmax, "sigmoid": _sigmoid, "linear": _linear}


class Network(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow is untyped
    """Rows (n, D), an array or a DataFrame of any numbers, to what the last layer says of them.

    A network with classes gives the class of each row (n,), and, with ``params={"probabilities": True}``, the
    probabilities (n, K) in the order of the classes; any other gives its outputs (n, K).
    """

    def load_context(self, context: Any) -> None:
        folder = Path(context.artifacts["network"])
        how = json.loads((folder / "network.json").read_text())
        self.layers = [
            (np.load(folder / f"weight.{i}.npy"), np.load(folder / f"bias.{i}.npy")) for i in range(how["n_layers"])
        ]
        self.hidden, self.last = ACTIVATIONS[how["activation"]], OUTPUTS[how["output"]]
        self.divide_by = np.float32(how["divide_by"])
        classes = folder / "classes.npy"
        self.classes = np.load(classes) if classes.exists() else None

    # MLflow turns most type hints into a signature, and warns where there is none; not at np.ndarray.
    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> np.ndarray:
        rows = model_input if hasattr(model_input, "toarray") else np.asarray(model_input)
        n_inputs = self.layers[0][0].shape[1]
        if rows.ndim != 2 or rows.shape[1] != n_inputs:
            raise ValueError(f"rows have shape {rows.shape}; expected (n, {n_inputs}).")
        starts = range(0, max(1, rows.shape[0]), ROWS)
        outputs = np.concatenate([self._outputs(rows[start : start + ROWS], start) for start in starts])
        if self.classes is None or (params or {}).get("probabilities"):
            return outputs
        return np.asarray(self.classes[outputs.argmax(axis=1)])

    def _outputs(self, rows: Any, start: int) -> np.ndarray:
        """Of at most ROWS rows, the first of which is row ``start`` of all."""
        rows = rows.toarray() if hasattr(rows, "toarray") else rows
        values = rows.astype(np.float32)
        values /= self.divide_by
        for i, (weight, bias) in enumerate(self.layers):
            values = values @ weight.T
            values += bias
            values = self.last(values) if i == len(self.layers) - 1 else self.hidden(values)
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(wrong):
            raise ValueError(f"row {start + wrong[0]}: NaN, or a number too large, in the row (first of {len(wrong)}).")
        return values


mlflow.models.set_model(Network())
