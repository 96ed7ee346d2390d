"""What a run is to hold once its work is done, and the files that keep it while no store takes it."""

from __future__ import annotations

import dataclasses
import io
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from lazypipe.secrets import hidden_in
from lazypipe.tracking.children import Child, Point

NAME = "not_logged.json"  # beside result.json
ARRAYS = "not_logged.npz"  # of the model, where there is one

Sample: TypeAlias = tuple[str, float, int, int]  # name, value, when (milliseconds), step


@dataclass(frozen=True)
class Model:
    """A fitted model: ``arguments`` are those of log_projection or log_network, but for the run's."""

    kind: Literal["projection", "network"]
    arguments: Mapping[str, Any]


@dataclass
class Record:
    """What is still to be sent: whatever a store has taken is taken off. ``files`` are names in the result folder."""

    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[Sample] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    children: list[Child] = field(default_factory=list)
    model: Model | None = None

    def add_metrics(self, metrics: Mapping[str, float], series: Iterable[Point] = ()) -> None:
        """Figures of the whole run, each once; and those that have several steps."""
        now = int(time.time() * 1000)
        self.metrics += [(name, float(value), now, 0) for name, value in metrics.items()]
        self.metrics += [(name, float(value), now, step) for name, value, step in series]

    def to_files(self, run: Mapping[str, str]) -> dict[str, bytes]:
        """Contents by file name; ``run`` says where it belongs (TrackedRun.describe)."""
        values: dict[str, Any] = {
            "run": dict(run),
            "tags": self.tags,
            "metrics": self.metrics,
            "files": self.files,
            "children": [dataclasses.asdict(child) for child in self.children],
            "model": None,
        }
        files: dict[str, bytes] = {}
        if self.model is not None:
            arrays, rest = _parted(self.model.arguments)
            values["model"] = {"kind": self.model.kind, "arguments": rest}
            packed = io.BytesIO()
            np.savez(packed, allow_pickle=False, **arrays)
            files[ARRAYS] = packed.getvalue()
        return files | {NAME: (json.dumps(hidden_in(values), indent=1) + "\n").encode()}

    @staticmethod
    def of(values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Record:
        """What ``to_files`` wrote."""
        children = [
            Child(**{**child, "points": [tuple(point) for point in child["points"]]}) for child in values["children"]
        ]
        model = values["model"]
        return Record(
            dict(values["tags"]),
            [(name, float(value), int(when), int(step)) for name, value, when, step in values["metrics"]],
            list(values["files"]),
            children,
            None if model is None else Model(model["kind"], _joined(model["arguments"], arrays)),
        )


def _parted(arguments: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays by name, and what JSON can hold."""
    arrays: dict[str, np.ndarray] = {}
    rest: dict[str, Any] = {}
    for name, value in arguments.items():
        if name == "layers":
            rest["n_layers"] = len(value)
            for i, (weight, bias) in enumerate(value):
                arrays |= {f"weight.{i}": np.asarray(weight), f"bias.{i}": np.asarray(bias)}
        elif name == "example" and hasattr(value, "toarray"):
            arrays[name] = value.toarray()
        elif isinstance(value, np.ndarray):
            arrays[name] = np.array(value.tolist()) if value.dtype == object else value
        else:
            rest[name] = value
    return arrays, rest


def _joined(rest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    arguments = {name: value for name, value in rest.items() if name != "n_layers"}
    if "n_layers" in rest:
        arguments["layers"] = [(arrays[f"weight.{i}"], arrays[f"bias.{i}"]) for i in range(rest["n_layers"])]
    return arguments | {name: array for name, array in arrays.items() if not name.startswith(("weight.", "bias."))}
