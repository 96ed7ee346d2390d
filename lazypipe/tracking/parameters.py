"""What was asked, as MLflow has it: short texts by dotted names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lazypipe.secrets import hidden

PARAMETER_LENGTH = 500
PARAMETERS_A_CALL = 100
NOTE_LENGTH = 5000


def note(text: str) -> dict[str, str]:
    """The tag that holds the markdown of a run's page."""
    return {"mlflow.note.content": text[:NOTE_LENGTH]} if text else {}


def log_parameters(
    client: Any, run_id: str, parameters: Mapping[str, str], logged: Mapping[str, str] | None = None
) -> None:
    """Log parameters, but for those that are ``logged`` already.

    MLflow keeps the value that was logged first: where the new one is another, a tag tells it.
    """
    from mlflow.entities import Param, RunTag

    shown = {name: hidden(value)[:PARAMETER_LENGTH] for name, value in parameters.items()}
    fresh = [Param(name, value) for name, value in shown.items() if name not in (logged or {})]
    for start in range(0, len(fresh), PARAMETERS_A_CALL):
        client.log_batch(run_id, params=fresh[start : start + PARAMETERS_A_CALL])
    changed = {name: value for name, value in shown.items() if (logged or {}).get(name, value) != value}
    if changed:
        client.log_batch(run_id, tags=[RunTag(f"lazypipe.now.{name}", value) for name, value in changed.items()])


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"engine": {"kind": "dask"}}`` as ``{"engine.kind": "dask"}``."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
