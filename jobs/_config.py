"""What every job's config shares, and how it is resolved, once: defaults < YAML < command line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from jobs._messages import explain
from lazypipe.checks import require_restart
from lazypipe.errors import ConfigError
from lazypipe.secrets import PASSWORD_IN_ADDRESS, holds_password
from lazypipe.sizes import parse_bytes

DEFAULT_STORE = "sqlite:///mlflow.db"


def _checked_size(text: str) -> str:
    parse_bytes(text)
    return text


MemorySize = Annotated[str, AfterValidator(_checked_size)]


def restart_of_a_state(value: bool, info: ValidationInfo) -> bool:
    """For the field ``restart`` after ``state``."""
    require_restart(info.data.get("state"), value)
    return value


def _refuse_passwords(schema: dict[str, Any]) -> None:
    """Say it of every text in the schema, too: by that Prefect refuses a run before it keeps the parameters."""
    if schema.get("type") == "string" and "enum" not in schema:
        schema["not"] = {"title": "an address with a password in it", "pattern": PASSWORD_IN_ADDRESS}
    inner = [schema.get("items"), *schema.get("properties", {}).values()]
    for part in (*inner, *schema.get("anyOf", ()), *schema.get("prefixItems", ())):
        if isinstance(part, dict):
            _refuse_passwords(part)


class Config(BaseModel):
    """Read-only, with no room for misspelt names, and none for passwords: a config is logged and kept."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, json_schema_extra=_refuse_passwords
    )

    @field_validator("*", mode="before")
    @classmethod
    def _plain_text(cls, value: Any) -> Any:
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, str) and "\0" in one:
                raise ValueError("holds a NUL character, which no path or name can have. Take it out")
            if isinstance(one, str) and holds_password(one):
                raise ValueError(
                    "holds a password, which would be logged. Leave it out, and set it in the environment (of MLflow: "
                    "MLFLOW_TRACKING_URI, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; of S3: "
                    "AWS_SECRET_ACCESS_KEY)"
                )
        return value


class EngineConfig(Config):
    """Where the work is done."""

    kind: Literal["serial", "dask", "spark"] = Field(
        "dask", description="what runs the tasks: this process alone, Dask, or Spark (needs Java 17 or 21)"
    )
    address: str | None = Field(
        None,
        description="a running cluster, tcp://host:8786 (Dask) or spark://host:7077 (Spark); "
        "without it the cores of this machine, nothing to start first",
    )
    memory: MemorySize | None = Field(
        None,
        description="budget for the job's arrays in each worker process and on the driver, such as 512MiB or "
        "2GiB, on top of what the libraries take; none: 2GiB on this machine, on a cluster what the worker's own limit "
        "leaves beside them",
    )
    workers: int | None = Field(None, ge=1, description="workers to use; without it one for each core")


class TrackingConfig(Config):
    """Where the run is recorded."""

    enabled: bool = Field(True, description="record the run in MLflow")
    uri: str | None = Field(
        None,
        min_length=1,
        description="MLflow tracking store: sqlite:///FILE, postgresql://..., or http://host:5000; without it "
        "$MLFLOW_TRACKING_URI, else sqlite:///mlflow.db",
    )
    experiment: str | None = Field(None, description="experiment that gets the run; without it the job's name")

    def store(self) -> str:
        """The address of the store; that of the environment may hold a password."""
        return self.uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE


class RunConfig(Config):
    """What the jobs that compute something have in common."""

    out: str | None = Field(
        None, min_length=1, description="folder for result.json and the arrays; without it results/JOB-<UTC time>"
    )
    overwrite: bool = Field(False, description="replace the result folder if it exists")
    reuse: bool = Field(
        False,
        description="where there is a result of the same data, config and code, give that and compute nothing",
    )
    engine: EngineConfig = Field(EngineConfig(), description="where the work is done")
    tracking: TrackingConfig = Field(TrackingConfig(), description="where the run is recorded")


class MatrixConfig(Config):
    """A matrix to read."""

    source: str = Field(min_length=1, description="matrix to read, a row a sample: .npy, Arrow IPC, Parquet or Zarr")
    column: str | None = Field(
        None, description="list column of a table, or array of a Zarr group, where the source has several"
    )


class JobConfig(RunConfig, MatrixConfig):
    """What the jobs that compute something from a matrix have in common."""


class PreparedJobConfig(JobConfig):
    """What is done to the entries inside the passes, and where the job keeps its state."""

    center: bool = Field(True, description="take the column means off; false: moments about zero (pca: truncated SVD)")
    nan: Literal["raise", "omit", "mean"] = Field(
        "raise", description="what a NaN is: an error, a reason to leave its row out, or a gap for the column's mean"
    )
    row_weights: str | None = Field(
        None, min_length=1, description=".npy (rows,) of weights, 0 or above; a row of weight 2 counts as two rows"
    )
    state: str | None = Field(
        None,
        min_length=1,
        description="folder that keeps the state: after a kill the job goes on where it was, on data with more rows it "
        "reads (covariance) or needs (pca) little more than what is new",
    )
    restart: bool = Field(False, description="forget what the state folder holds, and start over")

    _restarts = field_validator("restart")(restart_of_a_state)


ConfigType = TypeVar("ConfigType", bound=Config)


def resolve(
    model: type[ConfigType], options: Mapping[str, str | list[str]], path: Path | None, parts: Mapping[str, Path]
) -> ConfigType:
    """The config of a command line, validated; ConfigError in one line names the file or option at fault.

    ``options`` maps dotted field names to text, or to several words where a field takes them; ``path`` is the
    job's YAML file, and ``parts`` maps a nested field (``engine``) to a YAML file that holds the whole of it.
    """
    values: dict[str, Any] = {} if path is None else read_yaml(path)
    origin = {name: str(path) for name, _ in leaves(values)}
    for name, file in parts.items():
        values[name] = read_yaml(file)
        origin |= {leaf: str(file) for leaf, _ in leaves({name: values[name]})}
    for name, text in options.items():
        *parents, leaf = name.split(".")
        inner = values
        for parent in parents:
            if not isinstance(inner.get(parent), dict):
                inner[parent] = {}
            inner = inner[parent]
        inner[leaf] = None if isinstance(text, str) and text.lower() in ("none", "null") else text
        origin[name] = "command line"
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, model, origin)) from error


class _Loader(yaml.SafeLoader):
    """Refuses a name that is there twice, of which YAML takes the last without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} is there twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return node


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        if isinstance(values, dict):
            list(leaves(values))  # RecursionError where a mapping lies in itself
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {why}. Check the path.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "bad syntax"
        raise ConfigError(f"{path}: is not YAML{where}: {problem}.") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: a value in it lies in itself, or too deep in others. Write it flatter.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold 'name: value' lines, found a {type(values).__name__}.")
    if odd := [key for key in values if not isinstance(key, str)]:
        raise ConfigError(f"{path}: {odd[0]!r} is no name. Write 'name: value' lines.")
    return values


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of a nested mapping."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
