"""What is tried again: a failure of the cluster, and nothing else."""

import asyncio
from types import SimpleNamespace

import pytest
from prefect import flow
from prefect.states import exception_to_failed_state

import lazypipe as lp
from flows import _stages
from flows._stages import check, compute, engine_failed
from flows.pca import pca
from jobs.pca import PCAConfig

DOWN = lp.EngineError("dask: no scheduler answers at tcp://10.0.0.1:8786")
REFUSED = lp.RefusedError("dask: the worker at tcp://10.0.0.1:1 has numpy 1.0, the driver 2.0")


@pytest.mark.parametrize(
    ("error", "tries", "again"),
    [
        (DOWN, 1, True),
        (REFUSED, 1, False),
        (REFUSED, 2, True),  # it had failed otherwise, and may not be whole again
        (lp.DataError("rows.npy: NaN at row 1, column 1"), 2, False),
        (lp.MemoryPlanError("too little"), 2, False),
        (ValueError("a bug"), 2, False),
    ],
)
def test_only_engine_errors_are_tried_again(error, tries, again):
    async def ask():
        run = SimpleNamespace(run_count=tries)
        return await engine_failed(compute, run, await exception_to_failed_state(error))

    assert asyncio.run(ask()) is again


def test_the_check_is_tried_again_as_often_as_the_work():
    for stage in (check, compute):
        assert stage.retry_condition_fn is engine_failed and stage.retries == _stages.RETRIES
    assert check.retry_delay_seconds == compute.retry_delay_seconds
    assert check.retry_jitter_factor == compute.retry_jitter_factor


def flow_of(name, *attempts):
    """A flow of a check whose attempts end as given: an error, or well; retried at once. And what is left of them."""
    left = list(attempts)

    def plan(config):
        if isinstance(end := left.pop(0), Exception):
            raise end
        return SimpleNamespace(lines=lambda: ["plan      none"])

    @flow(name=name)
    def around():
        check.with_options(retry_delay_seconds=0, retry_jitter_factor=None)(plan, None)

    return around, left


def test_a_check_of_a_cluster_that_is_down_for_a_moment_goes_through(here):
    around, left = flow_of("down", DOWN, REFUSED, None)
    around()
    assert left == [] and here.last("down")["state"]["type"] == "COMPLETED"


def test_a_check_that_is_refused_ends_at_once(here):
    around, left = flow_of("refused", REFUSED, None)
    with pytest.raises(lp.RefusedError, match="has numpy 1.0"):
        around()
    assert left == [None]


def test_a_night_on_which_nothing_changed_ends_before_it_waits_for_anything(here, parameters, monkeypatch):
    config = PCAConfig.model_validate(parameters["config"] | {"reuse": True})
    first = pca(config)
    monkeypatch.setattr("flows._stages.turn", None)
    monkeypatch.setattr("jobs._run.open_engine", None)
    second = pca(config)
    assert second.reused and second.out == first.out
    run = here.last("pca")
    assert run["state"]["name"] == "Unchanged" and "nothing to do" in run["state"]["message"]
    tasks = here.post("/task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}}).json()
    assert {task["name"].partition("-")[0] for task in tasks} == {"check"}
