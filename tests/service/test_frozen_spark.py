"""Spark with a process that stands still for good: the right bits on another host, or a line and an end that works."""

import os
import re
import signal
import sys
import time

import pytest
from processes import Processes, wait_until
from service.clusters import SparkCluster, assert_same_bits, environment, kept, needs_java, rows_in, told

from lazypipe.engines.spark_session import FAULTS

pytestmark = needs_java
CHOSEN = ", ".join(f"{name.removeprefix('spark.')} {value}" for name, value in FAULTS.items())

DRIVER = """
import os, signal, sys, time
import psutil
from service.clusters import Heard, SlowMoments, executors_in, keep, plan_of, python_worker_of, tell
import lazypipe as lp
from lazypipe.engines import spark_still
from lazypipe.progress import Progress

address, path, out, folder, *still = sys.argv[1:]
spark_still.STILL_SECONDS = float(still[0]) if still else spark_still.STILL_SECONDS
matrix = lp.open_matrix(path)


def python_worker():
    return python_worker_of(executors_in(folder) if address != "None" else [psutil.Process()])


def fold(name, freeze):
    def stop():
        stopped.append(freeze())
        os.kill(stopped[0], signal.SIGSTOP)
        tell("stopped", pid=stopped[0])

    stopped = []
    heard = Heard(1, stop)
    engine.progress.listeners[:] = [heard, lambda event: hasattr(event, "worker") and tell("said", text=event.text)]
    found = engine.fold(SlowMoments(), matrix, plan_of())
    keep(f"{out}/{name}.npz", found)
    tell(name, seconds=time.monotonic() - heard.at, said=heard.texts())
    return heard, stopped[0]


def lasts(heard, seconds):
    "Until an executor is told lost, while there is work."
    while not any(text.startswith("lost") for text in heard.texts()) and time.monotonic() < heard.at + seconds:
        engine.fold(SlowMoments(seconds=0.01), matrix, plan_of())
    return time.monotonic() - heard.at


options = {"workers": 2} if address == "None" else {"address": address}
with lp.open_engine("spark", memory="64MiB", progress=Progress(), **options) as engine:
    heard, pid = fold("python", python_worker)
    begun = time.monotonic()
    while psutil.pid_exists(pid) and time.monotonic() < begun + 60:
        time.sleep(0.1)
    tell("python_gone", seconds=time.monotonic() - begun, gone=not psutil.pid_exists(pid))
    heard, pid = fold("executor", lambda: executors_in(folder)[0].pid)
    tell("executor_lost", seconds=lasts(heard, 180), said=heard.texts())
"""


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """One driver on two hosts, as Spark sees them: it begins a slow task once more on another host only."""
    folder = tmp_path_factory.mktemp("spark")
    matrix, wanted = rows_in(folder)
    with SparkCluster(folder, n_workers=0) as cluster:
        for i, host in enumerate(("127.0.0.2", "127.0.0.3")):
            cluster.start_worker(i, host)
        cluster.wait_for_workers(2)
        driver = cluster.start(sys.executable, "-c", DRIVER, cluster.address, matrix.uri, folder, folder)
        yield driver, folder, wanted


def test_a_frozen_python_worker_costs_seconds_where_there_is_another_host(trial):
    driver, folder, wanted = trial
    seconds = told(driver, "python")["seconds"]
    gone = told(driver, "python_gone")
    print(f"Python worker frozen: right answer {seconds:.1f} s later, its end {gone['seconds']:.1f} s after ({CHOSEN})")
    assert_same_bits(kept(folder / "python.npz"), wanted)
    assert gone["gone"]


def test_a_frozen_executor_costs_seconds_and_is_taken_for_lost(trial):
    driver, folder, wanted = trial
    seconds = told(driver, "executor")["seconds"]
    lost = told(driver, "executor_lost")
    print(f"executor frozen: right answer {seconds:.1f} s later, taken for lost {lost['seconds']:.1f} s ({CHOSEN})")
    assert_same_bits(kept(folder / "executor.npz"), wanted)
    assert [text for text in lost["said"] if text.startswith("lost")], lost


def test_a_frozen_python_worker_of_this_machine_is_told_and_the_run_can_be_ended(tmp_path):
    """Spark begins its task once more on another host, and here is none."""
    matrix, _ = rows_in(tmp_path)
    with Processes(tmp_path) as processes:
        command = (sys.executable, "-c", DRIVER, None, matrix.uri, tmp_path, tmp_path, 5)
        driver = processes.start(*command, env=environment())
        pid = told(driver, "stopped")["pid"]
        stopped = time.monotonic()
        text = told(driver, "said")["text"]
        print(f"told {time.monotonic() - stopped:.1f} s after it froze: {text}")
        assert re.match(
            r'at work on "pass 1", task \d of 8 \(rows [\d,]+ to [\d,]+\) for \d+ s; (executor driver of .*; )?'
            r"no task has ended for \d+ s, before \d+ s at most\. It is slow, or its process stands still: look at it",
            text,
        ), text
        begun = time.monotonic()
        os.kill(driver.pid, signal.SIGINT)
        driver.wait(120)
        print(f"ended {time.monotonic() - begun:.1f} s after Ctrl-C")
        assert "KeyboardInterrupt" in driver.log.read_text()
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 60, "the frozen process to end")
