"""What the stack is made of: folder, ports, sizes; from YAML and options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from jobs._config import Config, MemorySize
from jobs._values import words

Port = Annotated[int, Field(ge=1024, le=65535)]


class Ports(Config):
    """Where the servers listen."""

    prefect: Port = Field(4200, description="Prefect's interface and pages")
    mlflow: Port = Field(5000, description="MLflow's interface and pages")
    dask: Port = Field(8786, description="the Dask scheduler")
    dask_page: Port = Field(8787, description="its dashboard")
    spark: Port = Field(7077, description="the Spark master")
    spark_page: Port = Field(8080, description="its page; those of the workers take the ports after it")


class DaskCluster(Config):
    """The Dask workers."""

    workers: int = Field(2, ge=1, le=64, description="processes")
    gpu_workers: int = Field(1, ge=0, description="how many of them carry the resource GPU=1, be there a GPU or not")
    threads: int = Field(1, ge=1, description="tasks at once in a worker")
    memory: MemorySize = Field("2GiB", description="limit of a worker's memory")


class SparkCluster(Config):
    """The Spark standalone workers."""

    workers: int = Field(2, ge=1, le=64, description="processes")
    cores: int = Field(1, ge=1, description="tasks at once in a worker")
    memory: MemorySize = Field("2GiB", description="what a worker may give to executors")


class StackConfig(Config):
    """Which servers, where, and how large."""

    folder: str = Field(".lazypipe", min_length=1, description="folder that holds all data, logs and process ids")
    project: str = Field(".", min_length=1, description="folder of prefect.yaml, whose deployments are registered")
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0: all, for whoever comes")
    database: Literal["auto", "postgres", "sqlite"] = Field(
        "auto", description="where Prefect and MLflow keep their data; auto: PostgreSQL where it is installed"
    )
    spark: bool = Field(False, description="start a Spark master and workers too")
    pool: str = Field("lazypipe", min_length=1, description="work pool of the worker")
    flow_runs: int = Field(2, ge=1, description="flow runs at once in the worker")
    mlflow_processes: int = Field(2, ge=1, le=64, description="processes that answer for MLflow")
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(words)] = Field(
        (), description="host:port under which MLflow may be called, beside localhost and the address of host"
    )
    patience: float = Field(240, gt=0, description="seconds until every server must answer")
    ports: Ports = Field(Ports(), description="where the servers listen")
    dask: DaskCluster = Field(DaskCluster(), description="the Dask workers")
    spark_workers: SparkCluster = Field(SparkCluster(), description="the Spark workers")

    @property
    def here(self) -> str:
        """The address under which this machine reaches what listens on ``host``."""
        return "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host

    @property
    def place(self) -> Path:
        """The folder, absolute and without links, so that all commands call it the same."""
        return Path(os.path.realpath(Path(self.folder).expanduser()))

    @property
    def project_place(self) -> Path:
        """The folder of prefect.yaml, absolute."""
        return Path(self.project).expanduser().absolute()

    @property
    def prefect_api(self) -> str:
        """What PREFECT_API_URL must be."""
        return f"http://{self.here}:{self.ports.prefect}/api"

    @property
    def mlflow_uri(self) -> str:
        """What MLFLOW_TRACKING_URI must be."""
        return f"http://{self.here}:{self.ports.mlflow}"

    @property
    def dask_address(self) -> str:
        """What ``--engine.address`` must be for Dask."""
        return f"tcp://{self.here}:{self.ports.dask}"

    @property
    def spark_address(self) -> str:
        """What ``--engine.address`` must be for Spark."""
        return f"spark://{self.here}:{self.ports.spark}"
