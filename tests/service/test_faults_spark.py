"""A standalone Spark cluster whose processes are killed: the right bits, or a line that says which task and why."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from processes import wait_until
from service.clusters import N_ROWS, SparkCluster, assert_same_bits, environment, kept, needs_java, rows_in, told

pytestmark = needs_java

DRIVER = """
import os, signal, sys, time
from service.clusters import Heard, SlowMoments, die, executors_in, keep, plan_of, python_worker_of, say, tell
import lazypipe as lp
from lazypipe.progress import Progress

address, path, out, folder = sys.argv[1:]
matrix = lp.open_matrix(path)


def fold(name, kill):
    heard = Heard(1, lambda: os.kill(kill(), signal.SIGKILL))
    engine.progress.listeners[:] = [heard]
    found = engine.fold(SlowMoments(), matrix, plan_of())
    seconds = time.monotonic() - heard.at
    keep(f"{out}/{name}.npz", found)
    tell(name, seconds=seconds, said=heard.texts())


with lp.open_engine("spark", address=address, memory="64MiB", progress=Progress()) as engine:
    tell("trace", **engine.trace())
    fold("python", lambda: python_worker_of(executors_in(folder)))
    fold("executor", lambda: executors_in(folder)[0].pid)
    heard = Heard()
    engine.progress.listeners[:] = [heard]
    try:
        engine.fold(SlowMoments(seconds=0.0, grab=2**50, at=300), matrix, plan_of())
    except lp.EngineError as error:
        tell("memory", error=str(error))
    assert list(engine.map(say, range(3), plan_of(300))) == [0, 1, 2]
    time.sleep(1)
    tell("said", said=[[event.worker, event.text] for event in heard.said])
    try:
        list(engine.map(die, range(4), plan_of(400)))
    except lp.EngineError as error:
        tell("died", error=str(error))
    engine.context.pythonVer = "3.10"
    from lazypipe.engines.spark_session import require_same_workers
    try:
        require_same_workers(engine.context)
    except lp.EngineError as error:
        tell("version", error=str(error))
    engine.context.pythonVer = "%d.%d" % sys.version_info[:2]
    tell("waiting")
    engine.fold(SlowMoments(seconds=1.0), matrix, plan_of())
"""


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """One driver goes through all that may happen, as starts are dear; in the end it is killed in a fold."""
    folder = tmp_path_factory.mktemp("spark")
    matrix, wanted = rows_in(folder)
    with SparkCluster(folder) as cluster:
        command = (sys.executable, "-c", DRIVER, cluster.address, matrix.uri, folder, folder)
        yield cluster, cluster.start(*command), folder, wanted


def test_the_application_is_found_by_its_trace(trial):
    cluster, driver, *_ = trial
    trace = told(driver, "trace")
    assert trace["application_id"] in [one["id"] for one in cluster.state()["activeapps"]]
    assert trace["dashboard"].startswith("http://")


def test_a_killed_python_worker_costs_no_bit(trial):
    _, driver, folder, wanted = trial
    print(f"Python worker killed: right answer {told(driver, 'python')['seconds']:.1f} s later")
    assert_same_bits(kept(folder / "python.npz"), wanted)


def test_a_killed_executor_costs_no_bit_and_is_told(trial):
    _, driver, folder, wanted = trial
    found = told(driver, "executor")
    print(f"executor killed: right answer {found['seconds']:.1f} s later")
    assert_same_bits(kept(folder / "executor.npz"), wanted)
    assert [text for text in found["said"] if text.startswith("lost")], found["said"]


def test_a_task_that_is_refused_memory_is_named(trial):
    error = told(trial[1], "memory")["error"]
    assert re.match(
        r'spark: the worker executor \d+ of \S+ had no memory for "pass 1", task \d+ of \d+ \(rows \d+ to \d+\): '
        r"Unable to allocate 1.00 PiB .*; the plan allows 1MiB a task and .*Lower the budget",
        error,
    ), error


def test_what_a_python_worker_logs_reaches_the_driver_with_its_name(trial):
    said = told(trial[1], "said")["said"]
    ours = [(worker, text) for worker, text in said if text.startswith("slow")]
    assert sorted(text for _, text in ours) == [f"slow {i}" for i in range(3)]
    assert all(re.match(r"executor \d+ of \S+", worker) for worker, _ in ours), ours


def test_a_task_whose_process_dies_each_time_is_named(trial):
    error = told(trial[1], "died")["error"]
    assert re.match(
        r'spark: "pass 1", task 3 of 4 \(rows 200 to 300\) failed 4 times, last at executor \d+ of \S+: its process '
        r"died, most likely out of memory \(.*\); the plan allows 1MiB a task",
        error,
    ), error


def test_another_python_is_named(trial):
    """The workers are told that the driver has 3.10: they refuse it as they would a real one."""
    error = told(trial[1], "version")["error"]
    own = "{}.{}".format(*sys.version_info)
    assert re.match(rf"spark: the workers of spark://\S+ have Python {own}, the driver 3\.10\. Install Python 3", error)


def test_a_killed_driver_leaves_no_application_and_no_executor(trial):
    cluster, driver, *_ = trial
    told(driver, "waiting")
    wait_until(cluster.executors, 60, "executors")
    processes = [one for executor in cluster.executors() for one in (executor, *executor.children(True))]
    os.killpg(driver.pid, signal.SIGKILL)
    wait_until(lambda: not cluster.state()["activeapps"], 90, "the master to forget the application")
    wait_until(lambda: not [one for one in processes if one.is_running()], 60, "the executors and their Pythons to end")


def test_a_worker_with_another_numpy_is_named(tmp_path):
    (tmp_path / "python").write_text(
        f'#!/bin/sh\nexport PYTHONPATH={tmp_path}:$PYTHONPATH\nexec {sys.executable} "$@"\n'
    )
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "sitecustomize.py").write_text("import numpy\nnumpy.__version__ = '1.0.1'\n")
    done = subprocess.run(
        [sys.executable, "-c", "import lazypipe as lp; lp.open_engine('spark', workers=1)"],
        cwd=tmp_path, env={**os.environ, "PYSPARK_PYTHON": str(tmp_path / "python")}, capture_output=True, text=True,
        check=False, timeout=240,
    )  # fmt: skip
    last = done.stderr.splitlines()[-1]
    assert re.search(
        rf"spark: the worker at \S+/python\S* on \S+ of local\[1\] has numpy 1\.0\.1, the driver "
        rf"{re.escape(np.__version__)}\. Install numpy {re.escape(np.__version__)} where they run and name that Python",
        last,
    ), last


JAVA_DIES = """
import os, signal, sys, time
from pathlib import Path
from pyspark import SparkContext
from service.clusters import Heard, SlowMoments, assert_same_bits, plan_of
import numpy as np
import lazypipe as lp
from lazypipe.progress import Progress, StageStarted, TaskDone
from lazypipe.tables.convert import convert_table

path, folder = sys.argv[1:]
matrix = lp.open_matrix(path)


def kill():
    os.kill(SparkContext._gateway.proc.pid, signal.SIGKILL)


def engine(*listeners):
    return lp.open_engine("spark", workers=1, memory="64MiB", progress=Progress(listeners))


def at_write(event):
    if isinstance(event, StageStarted) and event.title.startswith("write"):
        kill()


with lp.open_engine("serial") as serial:
    wanted = serial.fold(SlowMoments(seconds=0.0), matrix, plan_of())
heard = Heard(1, kill)
try:
    with engine(heard) as spark:
        spark.fold(SlowMoments(), matrix, plan_of())
except lp.EngineError as error:
    print(f"fold {time.monotonic() - heard.at:.1f} {error}", flush=True)
with engine() as spark:  # of a Java of its own
    assert_same_bits(spark.fold(SlowMoments(seconds=0.0), matrix, plan_of()), wanted)
    frame = spark.session.range(100_000).selectExpr("id", "id / 8 as x")
    try:
        convert_table(frame, Path(folder) / "x.npy", name="numbers", progress=Progress((at_write,)))
    except lp.EngineError as error:
        print(f"table 0 {error}", flush=True)
    try:
        spark.peak_memory()
    except lp.EngineError as error:
        print(f"end 0 {error}", flush=True)
"""


def test_java_that_dies_under_a_run_is_told_in_a_line_and_the_next_engine_works(tmp_path):
    matrix, _ = rows_in(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", JAVA_DIES, matrix.uri, str(out)], cwd=tmp_path, env=environment(), capture_output=True,
        text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    fold, table, end = (line.split(maxsplit=2) for line in done.stdout.splitlines())
    print(f"Java killed: told {fold[1]} s later")
    assert (fold[0], table[0], end[0]) == ("fold", "table", "end") and float(fold[1]) < 30
    for (_, _, error), where in ((fold, '"pass 1"'), (table, '"write x.npy"'), (end, "its end")):
        assert re.fullmatch(
            rf"spark: Java, which drives the session at local\[1\], died at {where} \(process \d+ was ended by SIGKILL"
            r"\)\. Most likely it or this machine was out of memory: .* Then start again; with a state, the same "
            r"command goes on from where it was\.",
            error,
        ), error
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr, done.stderr
    assert not list(out.iterdir())


NO_EXECUTOR = """
import sys, time
from service.clusters import SlowMoments, plan_of
import lazypipe as lp
from lazypipe.engines import spark_session, spark_watch
from lazypipe.progress import Progress, WorkerSaid

address, path = sys.argv[1:]
spark_session.EXECUTOR_SECONDS = 9 if path == "none" else 120


def hear(event):
    if isinstance(event, WorkerSaid):
        print(f"said {time.monotonic():.1f} {event.worker}: {event.text}", flush=True)


try:
    with lp.open_engine("spark", address=address, memory="64MiB", progress=Progress((hear,))) as engine:
        matrix = lp.open_matrix(path)
        engine.fold(SlowMoments(seconds=0.0), matrix, plan_of())
        executors = engine.context._jsc.sc().getExecutorMemoryStatus  # and the driver
        while executors().size() > 1:
            time.sleep(0.2)
        engine._watch._seen -= 1000  # as if the driver had been at something else since
        engine._watch._looked -= 1000
        print("idle", engine.fold(SlowMoments(seconds=0.0), matrix, plan_of()).weight, flush=True)
        sys.stdin.readline()
        while executors().size() > 1:
            time.sleep(0.2)
        spark_watch.NONE_SECONDS = 9.0
        print("missing", flush=True)
        engine.fold(SlowMoments(), matrix, plan_of())
except lp.EngineError as error:
    print(f"error {time.monotonic():.1f} {error}", flush=True)
"""
DYNAMIC = {
    "spark.dynamicAllocation.enabled": "true",
    "spark.dynamicAllocation.shuffleTracking.enabled": "true",
    "spark.dynamicAllocation.executorIdleTimeout": "2s",
    "spark.dynamicAllocation.cachedExecutorIdleTimeout": "2s",
}


def waited(lines, address):
    """What is told of the wait for an executor in a line, once, before the error that is given."""
    (said,) = [line for line in lines if " the tasks have waited " in line]
    (error,) = [line for line in lines if line.startswith("error ")]
    _, at, worker, text = said.split(maxsplit=3)
    print(f"told {float(error.split()[1]) - float(at):.1f} s before the error: {text}")
    assert worker == f"{address}:" and float(at) < float(error.split()[1]) - 1
    assert re.fullmatch(
        r"the tasks have waited [5-8] s for an executor, and will for 9 s\. Start a worker, or free its cores and "
        r"memory \(see the master's page\)\.",
        text,
    ), text
    return error.split(maxsplit=2)[2]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A cluster with no worker yet."""
    with SparkCluster(tmp_path_factory.mktemp("small"), n_workers=0) as cluster:
        yield cluster


def test_a_master_with_no_executor_to_give_is_told_while_it_is_waited_for(small, tmp_path):
    driver = small.start(sys.executable, "-c", NO_EXECUTOR, small.address, "none")
    assert driver.wait(240) == 0, driver.log.read_text()
    assert waited(driver.log.read_text().splitlines(), small.address) == (
        f"spark: no executor from {small.address} within 9 s. Start a worker, or free its cores and memory (see the "
        f"master's page)."
    )


def test_executors_that_come_and_go_with_the_work_are_waited_for_and_missed_in_a_line(small, tmp_path):
    """Those that are let go are no loss, and the tasks' patience begins with the tasks."""
    matrix, _ = rows_in(tmp_path)
    worker = small.start_worker(0)
    small.wait_for_workers(1)
    (tmp_path / "spark-defaults.conf").write_text("".join(f"{name} {value}\n" for name, value in DYNAMIC.items()))
    driver = subprocess.Popen(
        [sys.executable, "-c", NO_EXECUTOR, small.address, matrix.uri], cwd=tmp_path, text=True,
        env={**small.env, "SPARK_CONF_DIR": str(tmp_path)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        lines = []
        while not (lines and lines[-1].startswith("idle ")):
            lines.append(driver.stdout.readline())
            assert lines[-1], lines
        assert float(lines[-1].split()[1]) == N_ROWS
        assert not [line for line in lines if ": lost" in line], lines
        assert [line for line in lines if ": let go" in line], lines
        small.end(worker)
        last, _ = driver.communicate("go on\n", timeout=240)
    finally:
        driver.kill()
        driver.wait()
    error = waited(last.partition("missing\n")[2].splitlines(), small.address)
    assert re.fullmatch(
        rf"spark: no executor is left at {small.address}, and none came for \d+ s\. Look at the logs of its workers, "
        r"and start some, or free their cores and memory \(see the master's page\)\.",
        error,
    ), error
