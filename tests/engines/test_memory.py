"""A task that gets no memory is told in a line: which one, and what the plan had allowed."""

import re
import sys

import cloudpickle
import numpy as np
import pytest
from distributed import Future

import lazypipe as lp
from lazypipe.blocks import Run
from lazypipe.engines import dask, dask_cluster
from lazypipe.engines.memory import budget_within, show_task
from lazypipe.plan import FoldPlan
from lazypipe.sizes import MIB

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find tests


def plan_of(*spans):
    runs = tuple(Run(i, start, stop, 10) for i, (start, stop) in enumerate(spans))
    return FoldPlan("pass 3", "rows", 10, runs, 0, 8, len(runs), 2**26, 0, 1, 0)


LINES = plan_of((0, 1_000), (1_000, 2_000))


def grab(task):
    return np.empty(2**60 if task else 1, np.int8)[0]


def refuse(task):
    raise lp.MemoryPlanError("too much: so it was planned.")


@pytest.mark.parametrize("kind", ["serial", "dask", "spark"])
def test_a_task_without_memory_is_named_with_the_bytes_of_the_plan(request, kind):
    engine = request.getfixturevalue(f"{kind}_engine")
    with pytest.raises(lp.EngineError) as caught:
        list(engine.map(grab, [0, 1], LINES))
    assert re.fullmatch(
        rf'{kind}: (this process|the worker \S+, process \d+) had no memory for "pass 3", task 2 of 2 '
        r"\(rows 1,000 to 2,000\): Unable to allocate 1.00 EiB for an array .*; "
        r"the plan allows 64MiB a task and \S+ in all, beside the \S+ of the libraries\. "
        r"Lower the budget \(memory=\), or give the process more\.",
        str(caught.value),
    ), caught.value


def test_after_a_loss_tasks_keep_their_number_and_the_stage_its_length():
    events, plan = [], plan_of(*((i, i + 10) for i in range(0, 60, 10)))
    progress = lp.progress.Progress((events.append,))
    with lp.open_engine("dask", workers=1, progress=progress) as engine:
        results = engine.map(grab, [0, 0, 0, 0, 1, 0], plan)
        found = [next(results), next(results)]
        engine.client.cancel([Future(key, engine.client) for key in list(engine.client.futures)], force=True)
        with pytest.raises(lp.EngineError, match=r'"pass 3", task 5 of 6 \(rows 40 to 50\)'):
            found.extend(results)
    assert len(found) >= 2
    start, *done = events
    assert isinstance(start, lp.progress.StageStarted) and start.n_tasks == 6
    assert all(isinstance(event, lp.progress.TaskDone) and event.n_tasks == 6 for event in done)
    assert [event.n_done / 6 for event in done] == pytest.approx([event.share for event in done])


@pytest.mark.parametrize("error", [OSError("Timed out trying to connect"), TimeoutError(), KeyError("tcp://gone")])
def test_what_did_not_arrive_is_sent_again(dask_engine, monkeypatch, error):
    errors, send = [error], dask.sent

    def sent(*arguments):
        if errors:
            raise errors.pop()
        return send(*arguments)

    monkeypatch.setattr(dask, "sent", sent)
    assert len(list(dask_engine.map(grab, [0, 0], LINES))) == 2 and not errors


@pytest.mark.parametrize("kind", ["serial", "dask", "spark"])
def test_a_plan_that_is_refused_within_a_task_stays_what_it_is(request, kind):
    engine = request.getfixturevalue(f"{kind}_engine")
    with pytest.raises(lp.MemoryPlanError, match="so it was planned"):
        list(engine.map(refuse, [0], plan_of((0, 1))))


def test_tasks_that_are_no_runs_of_lines_have_no_lines():
    assert show_task(plan_of((0, 800), (0, 100)), 1, 2) == '"pass 3", task 2 of 2'
    assert show_task(LINES, 0, 2) == '"pass 3", task 1 of 2 (rows 0 to 1,000)'
    assert show_task(LINES, 0, 3) == '"pass 3", task 1 of 3'
    assert show_task(LINES, None, 2) == '"pass 3", merging states'


@pytest.mark.parametrize("memory", [None, 16, 500])
def test_a_budget_is_what_was_given_or_all_the_room_there_is(memory):
    given = memory and memory * MIB
    assert budget_within("dask", given, 500 * MIB, 300 * MIB, "1000MiB", "raise it") == (memory or 500) * MIB


def test_a_budget_beyond_the_room_of_a_worker_is_refused_with_what_would_do():
    with pytest.raises(lp.MemoryPlanError) as told:
        budget_within("spark", 501 * MIB, 500 * MIB, 300 * MIB, "800MiB (of spark)", "raise that limit")
    assert str(told.value) == (
        "spark: a budget of 501MiB and the libraries' 300MiB exceed the workers' limit of 800MiB (of spark). Lower the "
        "budget to 496MiB, or raise that limit."
    )
    for memory in (None, 16 * MIB):
        with pytest.raises(lp.MemoryPlanError) as told:
            budget_within("spark", memory, 15 * MIB, 300 * MIB, "315MiB", "raise that limit")
        assert str(told.value) == (
            "spark: the libraries' 300MiB leave no room to work in below the workers' limit of 315MiB. "
            "Raise that limit."
        )


class Worker:
    """One that the scheduler knows."""

    def __init__(self, limit, base):
        self.told, self.base = {"nthreads": 1, "memory_limit": limit * MIB}, base * MIB


@pytest.mark.parametrize(
    ("workers", "room"),
    [
        ([Worker(1000, 300)], 500),
        ([Worker(1000, 300), Worker(2000, 1000)], 500),
        ([Worker(1000, 300), Worker(2000, 1200)], 400),
        ([Worker(1000, 300), Worker(0, 1200)], 500),
    ],
)
def test_a_dask_budget_ends_where_dask_pauses_a_worker(monkeypatch, workers, room):
    there = {str(i): worker for i, worker in enumerate(workers)}
    bases = {name: worker.base for name, worker in there.items()}
    monkeypatch.setattr(dask_cluster, "asked", lambda *_: bases)
    told = {name: worker.told for name, worker in there.items()}
    assert dask_cluster.host_of(None, told, None).memory == room * MIB
    assert dask_cluster.host_of(None, told, room * MIB).memory == room * MIB
    with pytest.raises(lp.MemoryPlanError, match=r"limit of \S+, of which Dask leaves 80%\. Lower the budget to"):
        dask_cluster.host_of(None, told, room * MIB + 1)
