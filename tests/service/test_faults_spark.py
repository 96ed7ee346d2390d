"""A standalone Spark cluster whose processes are killed: the right bits, or a line that says which task and why."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from service.clusters import N_ROWS, SparkCluster, needs_java, rows_in, wait_until

pytestmark = needs_java

DRIVER = """
import json, os, signal, sys, time
import numpy as np
from service.clusters import Heard, SlowMoments, die, executors_in, plan_of, say
import lazypipe as lp
from lazypipe.progress import Progress

address, path, out, folder = sys.argv[1:]
matrix = lp.open_matrix(path)


def python_worker():
    "One that a daemon of Python has forked."
    children = [child for one in executors_in(folder) for child in one.children(recursive=True)]
    daemons = [child.pid for child in children if "pyspark.daemon" in " ".join(child.cmdline())]
    return next(child.pid for child in children if child.ppid() in daemons)


def tell(name, **what):
    print(name, json.dumps(what), flush=True)


def fold(name, kill):
    heard = Heard(1, lambda: os.kill(kill(), signal.SIGKILL))
    engine.progress.listeners[:] = [heard]
    found = engine.fold(SlowMoments(), matrix, plan_of())
    tell(name, seconds=time.monotonic() - heard.at, said=heard.texts())
    np.savez(f"{out}/{name}.npz", weight=found.weight, mean=found.mean, variance=found.variance)


with lp.open_engine("spark", address=address, memory="64MiB", progress=Progress()) as engine:
    tell("trace", **engine.trace())
    fold("python", python_worker)
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
        driver = cluster.start(*command, env=cluster.env)

        def told(name, seconds=240):
            def line():
                text = driver.log.read_text()
                assert driver.poll() is None or f"\n{name} " in f"\n{text}", text
                return next((one for one in text.splitlines() if one.startswith(f"{name} {{")), "")

            return json.loads(wait_until(line, seconds, name).partition(" ")[2])

        yield cluster, driver, told, folder, wanted


def assert_right(folder, name, wanted):
    with np.load(folder / f"{name}.npz") as found:
        assert found["weight"] == N_ROWS
        np.testing.assert_array_equal(found["mean"], wanted.mean)
        np.testing.assert_array_equal(found["variance"], wanted.variance)


def test_the_application_is_found_by_its_trace(trial):
    cluster, _, told, *_ = trial
    trace = told("trace")
    assert trace["application_id"] in [one["id"] for one in cluster.state()["activeapps"]]
    assert trace["dashboard"].startswith("http://")


def test_a_killed_python_worker_costs_no_bit(trial):
    _, _, told, folder, wanted = trial
    print(f"Python worker killed: right answer {told('python')['seconds']:.1f} s later")
    assert_right(folder, "python", wanted)


def test_a_killed_executor_costs_no_bit_and_is_told(trial):
    _, _, told, folder, wanted = trial
    found = told("executor")
    print(f"executor killed: right answer {found['seconds']:.1f} s later")
    assert_right(folder, "executor", wanted)
    assert [text for text in found["said"] if text.startswith("lost")], found["said"]


def test_a_task_that_is_refused_memory_is_named(trial):
    told = trial[2]
    error = told("memory")["error"]
    assert re.match(
        r'spark: the worker executor \d+ of \S+ had no memory for "pass 1", task \d+ of \d+ \(rows \d+ to \d+\): '
        r"Unable to allocate 1.00 PiB .*; the plan allows 1MiB a task and .*Lower the budget",
        error,
    ), error


def test_what_a_python_worker_logs_reaches_the_driver_with_its_name(trial):
    said = trial[2]("said")["said"]
    ours = [(worker, text) for worker, text in said if text.startswith("slow")]
    assert sorted(text for _, text in ours) == [f"slow {i}" for i in range(3)]
    assert all(re.match(r"executor \d+ of \S+", worker) for worker, _ in ours), ours


def test_a_task_whose_process_dies_each_time_is_named(trial):
    error = trial[2]("died")["error"]
    assert re.match(
        r'spark: "pass 1", task 3 of 4 \(rows 200 to 300\) failed 4 times, last at executor \d+ of \S+: its process '
        r"died, most likely out of memory \(.*\); the plan allows 1MiB a task",
        error,
    ), error


def test_another_python_is_named(trial):
    """The workers are told that the driver has 3.10: they refuse it as they would a real one."""
    error = trial[2]("version")["error"]
    own = "{}.{}".format(*sys.version_info)
    assert re.match(rf"spark: the workers of spark://\S+ have Python {own}, the driver 3\.10\. Install Python 3", error)


def test_a_killed_driver_leaves_no_application_and_no_executor(trial):
    cluster, driver, told, *_ = trial
    told("waiting")
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
        rf"spark: the worker at \S+ of local\[1\] has numpy 1\.0\.1, the driver {re.escape(np.__version__)}\. Install "
        rf"numpy {re.escape(np.__version__)} where they run and name that Python",
        last,
    ), last
