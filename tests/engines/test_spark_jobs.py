"""Jobs of Spark while they run: ended when the caller is, told where nothing ends; and who their workers are."""

import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import clocks
import pytest

import lazypipe as lp
from lazypipe.engines import spark_gpus, spark_session, spark_still
from lazypipe.engines.spark_java import said
from lazypipe.engines.spark_jobs import Ends, run_job
from lazypipe.engines.spark_session import WORKERS_LIMIT, by_worker, workers_limit
from lazypipe.engines.spark_still import Stillness
from lazypipe.engines.versions import own_versions, require_same_versions
from lazypipe.progress import EpochDone, Progress, StepsDone, TaskDone, WorkerSaid
from lazypipe.sizes import MIB

OWN = list(own_versions())
OTHER = [OWN[0], "1.0.1", *OWN[2:]]


LOUD = """
import os
import lazypipe as lp

def write(number):
    if number == 2:
        os.write(2, b"a worker of this machine\\n")
    return number

with lp.open_engine("spark", workers=1) as engine:
    logger = engine.context._jvm.org.slf4j.LoggerFactory.getLogger("org.apache.spark.SparkEnv")
    logger.error("Exception in connection")
    try:
        engine.session.read.format("cvs").load("x")
    except Exception:
        print("refused", engine.context.parallelize([2, 3], 1).map(write).collect())
"""


def test_two_pythons_of_one_host_are_asked_one_by_one():
    answers = [[*OWN, "/a/python", "/work/0"], [*OTHER, "/b/python", "/work/1"], [*OWN, "/a/python", "/work/2"]]
    found = by_worker(answers, "yarn")
    assert found == {f"/a/python on {OWN[-1]} of yarn": OWN, f"/b/python on {OWN[-1]} of yarn": OTHER}
    with pytest.raises(lp.RefusedError, match=rf"the worker at /b/python on {OWN[-1]} of yarn has numpy 1.0.1"):
        require_same_versions("spark", found, "there")


def test_one_python_that_finds_other_packages_in_another_folder_is_named_by_it():
    found = by_worker([[*OWN, "python", "/work/0"], [*OTHER, "python", "/work/1"]], "yarn")
    assert found == {f"python on {OWN[-1]} of yarn": OWN, f"python in /work/1 on {OWN[-1]} of yarn": OTHER}


def test_a_job_is_cancelled_where_a_look_at_it_fails_even_before_it_has_begun(spark_engine):
    context = spark_engine.context

    def fail(group, n_done):
        raise RuntimeError("no display")

    begun = time.monotonic()
    with pytest.raises(RuntimeError, match="no display"):
        run_job(context, "sleep", 2, context.parallelize(range(2), 2).map(lambda _: time.sleep(300)).collect, [fail])
    assert time.monotonic() - begun < 60
    assert context.parallelize(range(2), 2).map(abs).collect() == [0, 1]  # the session works, and its slots are free


def test_spark_says_nothing_on_the_console_that_is_not_an_error_of_ours():
    done = subprocess.run([sys.executable, "-c", LOUD], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("refused [2, 3]\n", "a worker of this machine\n")


def test_a_session_at_another_address_is_not_taken_for_the_one_asked_for(spark_engine):
    with pytest.raises(lp.RefusedError, match=r"this process has a session at local\[2\], and can have no other"):
        lp.open_engine("spark", address="local[1]")
    with lp.open_engine("spark", address="local[2]") as engine:
        assert engine.session is spark_engine.session


@pytest.mark.parametrize(("configured", "mib"), [("2g", 2048), ("512m", 512), ("512", 512), ("1gb", 1024)])
def test_the_limit_of_python_workers_is_read_as_spark_writes_it(spark_engine, configured, mib):
    conf = spark_engine.context._jsc.sc().conf()
    assert workers_limit(spark_engine.context) is None
    conf.set(WORKERS_LIMIT, configured)
    try:
        assert workers_limit(spark_engine.context) == mib * MIB
    finally:
        conf.remove(WORKERS_LIMIT)


LIMITED = """
import sys
import lazypipe as lp
from pyspark.sql import SparkSession

limit, *budgets = sys.argv[1:]
SparkSession.builder.master("local[1]").config("spark.executor.pyspark.memory", limit).getOrCreate()
for budget in budgets:
    try:
        with lp.open_engine("spark", memory=None if budget == "all" else budget) as engine:
            print(engine.host.memory)
    except lp.MemoryPlanError as error:
        print(error)
"""


def opened_below(limit, *budgets):
    command = [sys.executable, "-c", LIMITED, limit, *budgets]
    env = {**os.environ, "PYSPARK_PYTHON": sys.executable}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.splitlines()


def test_a_budget_beyond_the_limit_of_python_workers_is_refused():
    room, given, too_much = opened_below("2g", "all", "64MiB", "2000MiB")
    assert 2**30 < int(room) < 2**31 - 128 * MIB and int(given) == 64 * MIB
    assert re.fullmatch(
        r"spark: a budget of 2.0GiB and the libraries' \d+MiB exceed the workers' limit of 2GiB "
        r"\(spark.executor.pyspark.memory\)\. Lower the budget to 1\d\d\dMiB, or raise that limit, or leave it unset\.",
        too_much,
    )


def test_what_the_cores_of_an_executor_share_is_a_part_of_the_limit(spark_engine, monkeypatch):
    monkeypatch.setattr(spark_session, "memory_here", lambda _: (1000 * 2**20, 300 * 2**20))
    conf = spark_engine.context._jsc.sc().conf()
    conf.set(WORKERS_LIMIT, "4000m")
    try:
        assert spark_session.checked_limit(spark_engine.context, None) == 700 * MIB
        with pytest.raises(lp.MemoryPlanError, match=r"1000MiB \(spark.executor.pyspark.memory, shared by the cores"):
            spark_session.checked_limit(spark_engine.context, 701 * MIB)
        conf.set(WORKERS_LIMIT, "200m")
        with pytest.raises(lp.MemoryPlanError, match="leave no room to work in below the workers' limit of 200MiB"):
            spark_session.checked_limit(spark_engine.context, None)
        conf.set(WORKERS_LIMIT, "0")
        assert spark_session.checked_limit(spark_engine.context, None) is None
    finally:
        conf.remove(WORKERS_LIMIT)


def test_the_progress_hears_of_each_end_once():
    told = []
    ends = Ends(Progress((told.append,)), 4)
    for n_done in (0, 1, 1, 3, 4):
        ends("group", n_done)
    assert told == [TaskDone(1, 4), TaskDone(3, 4), TaskDone(4, 4)]


def test_a_gpu_that_is_not_free_is_told_soon_and_given_up_later(monkeypatch):
    clock, active, told = clocks.by_hand(monkeypatch, "lazypipe.engines.spark_gpus"), [0], []
    monkeypatch.setattr(spark_gpus, "stages_of", lambda *_: [SimpleNamespace(numActiveTasks=active[0])])
    look = spark_gpus.Patience(SimpleNamespace(master="spark://m:7077"), 2, told.append)

    def after(seconds):
        clock[0] += seconds
        look("group", 0)

    after(4)
    assert not told
    after(4), after(4)
    (event,) = told
    assert event.worker == "spark://m:7077" and event.text == (
        "the tasks have waited 8 s for an executor that has 2 GPUs free, and will for 180 s. Start a worker, or free "
        "its cores and memory (see the master's page)."
    )
    active[0] = 1
    after(200)
    active[0] = 0
    after(170)
    with pytest.raises(lp.EngineError, match="for 181 s no executor of spark://m:7077 has come that has 2 GPUs free"):
        after(11)


@pytest.fixture
def still(monkeypatch):
    """What is told of five tasks, four of them at work; and the clock."""
    clock = clocks.by_hand(monkeypatch, "lazypipe.engines.spark_still", start=100.0)
    told = []
    running = [(40.0 + i, i, f"executor {i} of h") for i in (4, 3, 2, 1)]
    monkeypatch.setattr(Stillness, "_running", lambda *_: running)
    progress = Progress((lambda event: told.append(event) if isinstance(event, WorkerSaid) else None,))

    def after(seconds, n_done, *events):
        clock[0] += seconds
        for event in events:
            progress.emit(event)
        look("group", n_done)
        return [event.text for event in told]

    with Stillness(None, progress, lambda i: f"task {i + 1} of 5") as look:
        yield after, told
    assert len(progress.listeners) == 1


def test_tasks_that_stand_still_are_told_at_longer_and_longer_intervals(still):
    after, told = still
    assert not after(2, 1) and not after(29, 1)
    (text,) = after(2, 1)
    assert text == (
        "at work on task 5 of 5 for 44 s; executor 3 of h on task 4 of 5 for 43 s; executor 2 of h on task 3 of 5 for "
        "42 s; 1 more; no task has ended for 31 s, before 2 s at most. It is slow, or its process stands still: look "
        "at it there, or end the run."
    )
    assert told[0].worker == "executor 4 of h"
    assert len(after(30, 1)) == 1 and len(after(2, 1)) == 2


def test_pauses_that_are_usual_here_are_not_told(still):
    after, _ = still
    assert not after(20, 1) and not after(99, 1)
    assert after(2, 1)


def test_a_network_in_training_is_at_work_as_long_as_it_says_so(still):
    after, _ = still
    assert not after(200, 0, StepsDone("", 10, {})) and not after(299, 0, EpochDone("", 1, 9, 20, {}))
    assert not after(299, 0) and after(3, 0)


def test_first_tasks_may_take_long(still):
    after, _ = still
    assert not after(spark_still.FIRST_SECONDS - 1, 0)
    assert "no task has ended for 302 s. It is slow" in after(3, 0)[0]


FAILED = """An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 1.0 failed 1 times
Traceback (most recent call last):
  File "a.py", line 1, in f
KeyError: 'first'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in f
numpy.linalg.LinAlgError: singular.

\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator.handlePythonException(PythonRunner.scala:581)
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (FAILED, "numpy.linalg.LinAlgError: singular"),
        ("[PATH_NOT_FOUND] Path does not exist: x. SQLSTATE: 42K03\n\tat org", "Path does not exist: x"),
        ("nothing\nof the kind", "nothing"),
        ("\n", "ValueError"),
    ],
)
def test_what_spark_says_is_one_line_of_it(text, line):
    assert said(ValueError(text)) == line
