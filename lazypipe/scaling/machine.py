"""The rates of a machine that a prediction takes, each with where its default comes from."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar


def _rate(default: float, description: str) -> Any:
    return field(default=default, metadata={"description": description})


@dataclass(frozen=True)
class Machine:
    """Workers of one core each, the storage that they share, and the network between them."""

    COSTS: ClassVar = ("page", "piece", "task")  # that may be none

    storage: float = _rate(1.0, "GB/s that one worker reads or writes; 1: a cold local disk, or a share of 10 Gbit/s")
    shared_storage: float = _rate(10.0, "GB/s of all workers together; 10: a file system of ten such disks, assumed")
    page: float = _rate(4.0, "KiB that are read of a smaller piece; 4: a page of Linux")
    piece: float = _rate(4.0, "µs of each piece that lies apart; 4: measured in the page cache; a store takes 10,000")
    network: float = _rate(1.25, "GB/s into or out of one worker; 1.25: the line rate of 10 Gbit/s")
    memory: float = _rate(9.0, "GB/s at which states are added, one core; measured")
    float32: float = _rate(95.0, "GFLOP/s of products in float32, one core; measured")
    float64: float = _rate(50.0, "GFLOP/s of products in float64, one core; measured")
    thin: float = _rate(50.0, "GFLOP/s of products of float32 with few vectors, one core; measured")
    decomposition: float = _rate(45.0, "GFLOP/s of eigenvalues and factors, counted as 4 n³, one core; measured")
    additions: float = _rate(10.0, "G additions/s of windows, one core; measured")
    task: float = _rate(2.0, "ms of the scheduler for each task; measured with Dask")

    @classmethod
    def descriptions(cls) -> dict[str, tuple[float, str]]:
        """Default and description of each rate, by its name."""
        return {one.name: (one.default, one.metadata["description"]) for one in fields(cls)}  # type: ignore[misc]
