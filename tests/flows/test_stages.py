"""What is tried again: a failure of the cluster, and nothing else."""

import asyncio

import pytest
from prefect.states import exception_to_failed_state

import lazypipe as lp
from flows._stages import compute, engine_failed


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (lp.EngineError("dask: a worker died"), True),
        (lp.DataError("rows.npy: NaN at row 1, column 1"), False),
        (lp.MemoryPlanError("too little"), False),
        (ValueError("a bug"), False),
    ],
)
def test_only_engine_errors_are_tried_again(error, again):
    async def ask():
        return await engine_failed(compute, None, await exception_to_failed_state(error))

    assert asyncio.run(ask()) is again
    assert compute.retry_condition_fn is engine_failed
