"""Fitted models in MLflow, as arrays and code that need numpy alone: projections, networks."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lazypipe.errors import ConfigError

STORE = "MLFLOW_TRACKING_URI"  # which jobs that follow read, too
CODE = Path(__file__).parent
PROJECTION = ("mean", "components", "scale", "fill")  # arguments of log_projection
NEEDS = ("mlflow", "numpy", "pandas")
ACTIVATIONS = ("relu", "tanh", "sigmoid", "linear")
OUTPUTS = ("softmax", "sigmoid", "linear")
EXAMPLE_ROWS = 3
EXAMPLE_COLUMNS = 4096  # an example is written out as text, and shown

_store = threading.Lock()


def log_projection(
    uri: str,
    run_id: str,
    mean: np.ndarray,
    components: np.ndarray,
    scale: np.ndarray | None = None,
    fill: np.ndarray | None = None,
) -> None:
    """Mean (D,), components (k, D) and scale (D,) as a pyfunc model of a run: rows (n, D) in, scores (n, k) out.

    ``fill`` (D,) takes the place of NaN in the rows.

    ``mlflow.pyfunc.load_model("runs:/<run id>/model")`` brings it back; it needs numpy alone, not
    lazypipe. It has no signature: a million columns would make one of 100 MB.
    """
    arrays = {"mean": mean, "components": components}
    arrays |= {name: array for name, array in (("scale", scale), ("fill", fill)) if array is not None}
    with tempfile.TemporaryDirectory(prefix="lazypipe-model-") as folder:
        _save(folder, arrays)
        _log(uri, run_id, "model", "projection.py", {name: f"{folder}/{name}.npy" for name in arrays})


def log_network(
    uri: str,
    run_id: str,
    layers: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    activation: str = "relu",
    output: str = "softmax",
    classes: Any = None,
    divide_by: float = 1.0,
    example: Any = None,
    name: str = "model",
) -> None:
    """Weights (outputs, inputs) and biases (outputs,) of each layer as a pyfunc model of a run: rows (n, D) in.

    Rows are divided by ``divide_by``; ``activation`` is that of the hidden layers, ``output`` ("softmax",
    "sigmoid", "linear") that of the last one. With ``classes`` (K,), in the order of the outputs, ``predict``
    gives the class of each row (n,), and probabilities (n, K) with ``params={"probabilities": True}``; else it
    gives the outputs (n, K). A stack of RBMs is layers of "sigmoid", its features the outputs of the last.

    ``mlflow.pyfunc.load_model("runs:/<run id>/<name>")`` brings it back; it needs numpy alone, not lazypipe nor
    torch, and takes arrays, DataFrames and CSR matrices of any numbers: its signature says nothing of what goes
    in, since MLflow would refuse whatever has not the one dtype of the signature. The first 3 rows of
    ``example`` go with it as its input example, except where they have more than 4,096 columns. ConfigError for
    layers that do not fit together, and for unknown names.
    """
    arrays = _network_arrays(layers, activation, output, classes)
    n_inputs, n_outputs = layers[0][0].shape[1], len(layers[-1][1])
    options: dict[str, Any] = {
        "signature": _signature(arrays.get("classes"), n_outputs),
        "metadata": {"n_inputs": n_inputs, "n_outputs": n_outputs, "rows": f"(n, {n_inputs}) of any numbers"},
    }
    if example is not None and n_inputs <= EXAMPLE_COLUMNS:
        options["input_example"] = np.asarray(example)[:EXAMPLE_ROWS]
    elif example is not None:
        options["metadata"]["input_example"] = f"left out: more than {EXAMPLE_COLUMNS:,} columns"
    with tempfile.TemporaryDirectory(prefix="lazypipe-model-") as folder:
        network = Path(folder, "network")
        network.mkdir()
        # not MLflow's model_config, which becomes parameters of the run, beside its own of the same names
        how = {"n_layers": len(layers), "activation": activation, "output": output, "divide_by": float(divide_by)}
        (network / "network.json").write_text(json.dumps(how))
        _save(network, arrays)
        _log(uri, run_id, name, "network.py", {"network": str(network)}, **options)


def _network_arrays(layers: Sequence[Any], activation: str, output: str, classes: Any) -> dict[str, np.ndarray]:
    """What is saved, by name; ConfigError where it makes no network."""
    for what, given, known in (("activation", activation, ACTIVATIONS), ("output", output, OUTPUTS)):
        if given not in known:
            raise ConfigError(f"log_network: {what} {given!r} is none of {', '.join(known)}.")
    arrays: dict[str, np.ndarray] = {}
    n_units = None
    if not len(layers):
        raise ConfigError("log_network: there is no layer. Give weights and biases of at least one.")
    for i, (weight, bias) in enumerate(layers):
        if weight.ndim != 2 or bias.shape != weight.shape[:1] or n_units not in (None, weight.shape[1]):
            raise ConfigError(
                f"log_network: layer {i} has weights {weight.shape} and biases {bias.shape} on {n_units or 'D'} units. "
                "Give (outputs, inputs) and (outputs,)."
            )
        n_units = len(weight)
        arrays |= {f"weight.{i}": np.asarray(weight, np.float32), f"bias.{i}": np.asarray(bias, np.float32)}
    if classes is not None:
        values = np.asarray(classes)
        values = np.array(values.tolist()) if values.dtype == object else values  # objects would have to be pickled
        if output != "softmax" or values.shape != (n_units,) or values.dtype == object:
            raise ConfigError(
                f"log_network: {values.shape} classes of {values.dtype} for {n_units} units of {output} outputs. "
                "Give a number or a text a unit of a softmax."
            )
        arrays["classes"] = values
    return arrays


def _signature(classes: np.ndarray | None, n_outputs: int) -> Any:
    """What comes out, and what may be asked; of what goes in MLflow would accept one dtype only, and no other."""
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    if classes is None:
        return ModelSignature(outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, n_outputs))]))
    return ModelSignature(
        outputs=Schema([TensorSpec(np.dtype(classes.dtype.type), (-1,))]),
        params=ParamSchema([ParamSpec("probabilities", "boolean", False)]),
    )


def _save(folder: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        np.save(f"{folder}/{name}.npy", array, allow_pickle=False)


@contextmanager
def _tracking_at(uri: str) -> Iterator[None]:
    """MLflow's functions work on the store at ``uri``, for one thread at a time: which store it is, is global there.

    At the end the store that the caller had chosen is chosen again, and the environment, where MLflow writes it, is as
    before.
    """
    import mlflow

    with _store:
        before = os.environ.pop(STORE, None)
        chosen = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None  # by mlflow.set_tracking_uri
        mlflow.set_tracking_uri(uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(chosen)
            os.environ.pop(STORE, None)
            if before is not None:
                os.environ[STORE] = before


def _log(uri: str, run_id: str, name: str, code: str, artifacts: dict[str, str], **options: Any) -> None:
    import mlflow

    with _tracking_at(uri), mlflow.start_run(run_id=run_id), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*input example was not provided")
        mlflow.pyfunc.log_model(
            name=name,
            python_model=str(CODE / code),
            artifacts=artifacts,
            pip_requirements=[f"{need}=={version(need)}" for need in NEEDS],
            **options,
        )
