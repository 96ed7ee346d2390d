"""Which runs train on a GPU, and how they take turns: the concurrency limit ``gpu`` of the Prefect server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

from flows.stack.registering import GPU_LIMIT, MAKE_GPU_LIMIT


@contextmanager
def turn(plan: Any, config: Any) -> Iterator[None]:
    """Hold a slot of the limit ``gpu`` while the block lasts, where the run goes to a GPU; wait until one is free."""
    if not goes_to_gpu(plan, config):
        yield
        return
    logger = get_run_logger()
    if not limit_exists():
        make = " ".join(("prefect", *MAKE_GPU_LIMIT))
        logger.warning("GPU: there is no concurrency limit %r, so runs may meet on it. Make one: %s", GPU_LIMIT, make)
        yield
        return
    logger.info("GPU: waiting for a slot of the concurrency limit %r", GPU_LIMIT)
    # A slot that cannot be renewed, while the server is away, ends no training.
    with concurrency(GPU_LIMIT, occupy=1, raise_on_lease_renewal_failure=False):
        logger.info("GPU: its turn has come")
        yield


def goes_to_gpu(plan: Any, config: Any) -> bool:
    """Whether the tasks of ``plan`` ask for GPUs of a cluster, or the training takes that of this machine."""
    folds = getattr(plan, "folds", ())
    if any(fold.gpus for fold in folds):
        return True
    device = getattr(config, "device", None)
    if device not in ("auto", "cuda") or not folds or not folds[0].shared:
        return False
    from lazypipe.nets.device import device_of

    return bool(device_of(device).type == "cuda")


def limit_exists() -> bool:
    """Whether the Prefect server knows the limit ``gpu``."""
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(GPU_LIMIT)
        except ObjectNotFound:
            return False
    return True
