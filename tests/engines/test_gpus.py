"""Tasks that need a GPU go to workers that offer one, and what tasks tell is seen while they run. No GPU is used."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from socket import create_connection
from types import MappingProxyType

import cloudpickle
import numpy as np
import pytest

import lazypipe as lp
from lazypipe.blocks import Run
from lazypipe.engines import dask_gpus, listening, listening_tcp
from lazypipe.engines.placed import given_gpu
from lazypipe.plan import FoldPlan
from lazypipe.progress import EpochDone, StepsDone

cloudpickle.register_pickle_by_value(sys.modules[__name__])
needs_java = pytest.mark.skipif(
    shutil.which("java") is None and "JAVA_HOME" not in os.environ, reason="Spark needs Java 17 or 21"
)


class sent:
    """A function of one task that goes to workers by value: they do not find tests."""

    def __init__(self, function, **arguments):
        self.call = lambda task: function(task, **arguments)

    def __call__(self, task):
        return self.call(task)

    def __reduce__(self):
        return cloudpickle.loads, (cloudpickle.dumps(self.call),)


def plan_of(n_tasks, gpus=0):
    runs = tuple(Run(i, i, i + 1, 1) for i in range(n_tasks))
    return FoldPlan("training", "rows", 1, runs, 0, 8, n_tasks, 8, 0, 2, 0, gpus=gpus)


def events(n):
    return [StepsDone("rbm 1", step, {"loss": 1 / step}) for step in range(1, n)] + [
        EpochDone("", 1, 2, n, {"train_loss": 0.5, "validation_accuracy": float("inf")})
    ]


def tell_all(task, tell):
    for event in events(task):
        tell(event)
    return task


def tell_and_wait(task, tell, path):
    """Ends once the driver, which hears of it, has made a file; else after a minute."""
    tell(StepsDone("", task, {}))
    for _ in range(600):
        if path.exists():
            return "heard"
        time.sleep(0.1)
    return "not heard"


@contextmanager
def heard_by(engine, *kinds):
    """The events of those kinds that an engine, which others use as well, emits."""
    found = []

    def hear(event):
        if isinstance(event, kinds):
            found.append(event)

    engine.progress.listeners.append(hear)
    try:
        yield found
    finally:
        engine.progress.listeners.remove(hear)


@contextmanager
def calling(engine, function):
    """Whatever is to be done once a task has been heard of."""

    def call(event):
        if isinstance(event, StepsDone):
            function()

    engine.progress.listeners.append(call)
    try:
        yield
    finally:
        engine.progress.listeners.remove(call)


@contextmanager
def dask_engine_with(scheduler, workers):
    """On a cluster of the given workers, once they are there."""
    with ExitStack() as stack:
        for worker in workers:
            stack.enter_context(worker)
        while True:
            engine = lp.open_engine("dask", address=scheduler, memory="64MiB")
            if len(engine.client.scheduler_info()["workers"]) == len(workers):
                break
            engine.close()
            time.sleep(0.2)
        yield stack.enter_context(engine)


def named(_):
    from distributed import get_worker

    assert given_gpu() is None  # the worker's process has one device, its first
    return get_worker().name


def test_dask_tasks_go_to_workers_with_gpus_and_tell(dask_scheduler, dask_worker, tmp_path):
    workers = [
        dask_worker("--nthreads", "2", "--name", "with", "--resources", "GPU=1"),
        dask_worker("--nthreads", "2", "--name", "without"),
    ]
    with dask_engine_with(dask_scheduler, workers) as engine:
        assert engine.gpus == 1
        assert set(engine.map(sent(named), range(8), plan_of(8, gpus=1))) == {"with"}
        # One at a time on that worker, so the memory of one is all that is asked for.
        assert list(engine.map(sent(named), range(2), replace(plan_of(2, gpus=1), concurrency=1))) == ["with"] * 2
        with pytest.raises(lp.EngineError, match=r"no worker at tcp://\S+ offers 2 GPUs\. .*--resources GPU=2`.*cpu"):
            list(engine.map(sent(named), [0], plan_of(1, gpus=2)))

        with heard_by(engine, StepsDone, EpochDone) as heard, engine.listen() as tell:
            assert list(engine.map(sent(tell_all, tell=tell), [20], plan_of(1, gpus=1))) == [20]
        assert heard == events(20)
        path = tmp_path / "heard"
        with calling(engine, path.touch), engine.listen() as tell:
            work = sent(tell_and_wait, tell=tell, path=path)
            assert list(engine.map(work, [1], plan_of(1))) == ["heard"]
        with heard_by(engine, StepsDone) as heard:
            assert list(engine.map(sent(tell_all, tell=tell), [20], plan_of(1))) == [20]
        assert heard == []


def test_the_last_dask_worker_with_a_gpu_gone_is_told(dask_scheduler, dask_worker, monkeypatch, tmp_path):
    monkeypatch.setattr(dask_gpus, "GONE_SECONDS", 1.0)
    options = ("--nthreads", "1", "--no-nanny")
    workers = [dask_worker(*options), dask_worker(*options, "--resources", "GPU=1")]
    with dask_engine_with(dask_scheduler, workers) as engine:
        pid = engine.client.submit(os.getpid, resources={"GPU": 1}).result()
        with calling(engine, lambda: os.kill(pid, signal.SIGKILL)), engine.listen() as tell:
            work = sent(tell_and_wait, tell=tell, path=tmp_path / "never")
            with pytest.raises(lp.EngineError, match="offers a GPU any more"):
                list(engine.map(work, [1], plan_of(1, gpus=1)))


def test_in_this_process(serial_engine, dask_engine):
    for engine in (serial_engine, dask_engine):
        assert engine.gpus is None
        with heard_by(engine, StepsDone, EpochDone) as heard, engine.listen() as tell:
            again = pickle.loads(pickle.dumps(tell))
            assert list(engine.map(sent(tell_all, tell=again), [20], plan_of(1, gpus=1))) == [20]
        tell(StepsDone("", 1, {}))  # too late
        assert heard == events(20)


def test_spark_tells_from_this_machine(spark_engine, tmp_path):
    assert spark_engine.gpus is None
    with heard_by(spark_engine, StepsDone, EpochDone) as heard, spark_engine.listen() as tell:
        assert list(spark_engine.map(sent(tell_all, tell=tell), [20], plan_of(1, gpus=1))) == [20]
    assert heard == events(20)
    path = tmp_path / "heard"
    with calling(spark_engine, path.touch), spark_engine.listen() as other:
        assert list(spark_engine.map(sent(tell_and_wait, tell=other, path=path), [1], plan_of(1))) == ["heard"]
    with heard_by(spark_engine, StepsDone, EpochDone) as heard:
        assert list(spark_engine.map(sent(tell_all, tell=tell), [20], plan_of(1))) == [20]  # nobody is there
    assert heard == []


def test_strangers_are_cut_off():
    progress = lp.progress.Progress()
    heard = []
    progress.listeners.append(heard.append)
    with listening_tcp.listening_at(progress, "127.0.0.1", "127.0.0.1") as tell:
        for said in (b"guess\n", b"x" * 2**17, tell.key.encode() + b'\n["os.system", {}]\n'):
            with suppress(ConnectionError), create_connection((tell.host, tell.port), 5) as stranger:
                stranger.sendall(said)
                assert stranger.recv(1) == b""
        tell.send(listening.as_line(StepsDone("", np.int64(3), MappingProxyType({"loss": np.float32(0.5)}))))
    assert heard == [StepsDone("", 3, {"loss": 0.5})]


def test_a_driver_that_is_gone_fails_no_task_and_is_told_once(caplog):
    with listening_tcp.listening_at(lp.progress.Progress(), "127.0.0.1", "127.0.0.1") as tell:
        pass
    for event in events(20):
        tell(event)
    assert [record.message.split(" (")[0] for record in caplog.records] == [
        f"progress: the driver cannot be reached at 127.0.0.1:{tell.port}"
    ]


def test_a_listener_that_fails_does_not_fail_the_work(caplog):
    def fail(event):
        raise RuntimeError("no display")

    with listening_tcp.listening_at(lp.progress.Progress((fail,)), "127.0.0.1", "127.0.0.1") as tell:
        tell.send(listening.as_line(StepsDone("", 1, {})))
    assert "a listener failed at StepsDone (no display)" in caplog.text


def test_events_of_several_threads_are_handed_on_by_one(monkeypatch):
    """Of two, one would never end."""
    begun = []

    class Slow(threading.Thread):
        def __init__(self, **options):
            time.sleep(0.05)
            super().__init__(**options)
            begun.append(self)

    heard = []
    ear = listening.Ear(lp.progress.Progress((heard.append,)))
    tellers = [threading.Thread(target=ear.put, args=(event,)) for event in events(4)]
    monkeypatch.setattr(threading, "Thread", Slow)
    for teller in tellers:
        teller.start()
    for teller in tellers:
        teller.join()
    ear.close()
    assert len(begun) == 1 and not begun[0].is_alive()
    assert len(heard) == 4


ON_SPARK = """
import sys
from dataclasses import dataclass

import lazypipe as lp
from lazypipe.blocks import Run
from lazypipe.engines.listening import Tell
from lazypipe.engines.placed import given_gpu
from lazypipe.plan import FoldPlan
from lazypipe.progress import Progress, StepsDone

PLAN = FoldPlan("training", "rows", 1, (Run(0, 0, 1, 1), Run(1, 1, 2, 1)), 0, 8, 2, 8, 0, 2, 0, gpus=1)


@dataclass
class Train:
    tell: Tell

    def __call__(self, task):
        self.tell(StepsDone("", task, {}))
        return given_gpu()


def hear(event):
    if isinstance(event, StepsDone):
        print("step", event.step)


def main(master):
    with lp.open_engine("spark", address=master, memory="64MiB") as engine:
        print("offered", engine.gpus)
        try:
            list(engine.map(abs, [1, 2], PLAN))
        except lp.EngineError as error:
            print(error)

    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(master).config("spark.executor.resource.gpu.amount", 1)
    context = builder.config("spark.ui.enabled", "false").getOrCreate().sparkContext
    context.pythonExec = sys.executable
    context.addPyFile(__file__)
    with lp.open_engine("spark", memory="64MiB", progress=Progress((hear,))) as engine, engine.listen() as tell:
        print("offered", engine.gpus)
        print("given", *engine.map(Train(tell), [1, 2], PLAN))
"""


@needs_java
def test_spark_places_tasks_by_a_profile(spark_master, tmp_path):
    (tmp_path / "training.py").write_text(ON_SPARK)
    command = [sys.executable, "-c", f"import training; training.main({spark_master!r})"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    none, refused, offered, *steps, given = done.stdout.splitlines()
    assert (none, offered) == ("offered 0", "offered 1")
    assert f"an executor of {spark_master} has no GPU, a task needs a GPU. Start workers with spark.worker" in refused
    assert steps == ["step 1", "step 2"] and given == "given 3 3"
