"""What engines tell of unequal tasks: the share of the work that is done."""

import threading
import time
from dataclasses import replace

import lazypipe as lp
from lazypipe.blocks import Run
from lazypipe.plan import FoldPlan
from lazypipe.progress import StageDone, StageStarted, TaskDone

LENGTHS = (800, 100, 100)
MEETING = threading.Barrier(9, timeout=30)


def plan_of(lengths):
    runs = tuple(Run(i, 0, length, 10) for i, length in enumerate(lengths))
    return FoldPlan("fits", "rows", 10, runs, 0, 8, len(runs), 8, 0, 2, 0)


def events_of(engine, function, tasks, plan):
    """What an engine, which others use as well, tells of a map."""
    heard = []
    listen = heard.append
    engine.progress.listeners.append(listen)
    try:
        list(engine.map(function, tasks, plan))
    finally:
        engine.progress.listeners.remove(listen)
    return heard


def double(task):
    time.sleep(0.3)  # longer than Spark waits before it looks again
    return 2 * task


def meet(_):
    return MEETING.wait()


def test_one_after_another(serial_engine):
    start, *done, end = events_of(serial_engine, double, [1, 2, 3], plan_of(LENGTHS))
    assert isinstance(start, StageStarted) and isinstance(end, StageDone)
    assert done == [TaskDone(1, 3, 0.8), TaskDone(2, 3, 0.9), TaskDone(3, 3, 1.0)]


def test_clusters_end_with_the_whole(cluster_engine):
    _, *done, _ = events_of(cluster_engine, double, [1, 2, 3], plan_of(LENGTHS))
    shares = [event.share for event in done]
    assert shares == sorted(shares) and set(shares) <= {0.1, 0.2, 0.8, 0.9, 1.0}
    assert done[-1].n_done <= 3 and (done[-1].share == 1.0) == (done[-1].n_done == 3)


def test_dask_tells_which_tasks_they_were(dask_engine):
    def unequal(task):
        time.sleep(task)
        return task

    _, *done, _ = events_of(dask_engine, unequal, [0.4, 0.0], plan_of((900, 100)))
    assert done == [TaskDone(1, 2, 0.1), TaskDone(2, 2, 1.0)]


def test_as_many_tasks_run_at_once_as_the_plan_allows():
    """Of nine threads all, though nine ninths are not 1 in floating point."""
    plan = replace(plan_of((1,) * 9), concurrency=9)
    with lp.open_engine("dask", workers=9) as engine:
        assert sorted(engine.map(meet, range(9), plan)) == list(range(9))


def test_tasks_that_are_no_runs_have_no_share(serial_engine):
    _, *done, _ = events_of(serial_engine, double, [1], plan_of(LENGTHS))
    assert done == [TaskDone(1, 1, None)]
