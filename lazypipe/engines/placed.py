"""Which GPU a task was given, asked on the worker."""

from __future__ import annotations

import sys

from lazypipe.errors import RefusedError


def show_gpus(n: int) -> str:
    return "a GPU" if n == 1 else f"{n} GPUs"


def given_gpu() -> int | None:
    """The index of the GPU that the engine gave this task, the first where a plan asks for several.

    None where the process decides: on this machine, and under Dask, whose GPU workers see one device each
    (``CUDA_VISIBLE_DEVICES``). Ask in the task's own process: one that it starts knows nothing of it.

    Raises
    ------
    RefusedError : Spark's discovery script names GPUs by something else than their index.
    """
    pyspark = sys.modules.get("pyspark")  # in a worker of Spark it is there
    context = pyspark.TaskContext.get() if pyspark else None
    found = context.resources().get("gpu") if context else None
    if found is None or not found.addresses:
        return None
    address = found.addresses[0]
    if not address.isdigit():
        raise RefusedError(
            f"spark: the GPU of this task is called {address!r}, which is no index. Have the script of "
            f"spark.worker.resource.gpu.discoveryScript print what nvidia-smi --query-gpu=index gives."
        )
    return int(address)
