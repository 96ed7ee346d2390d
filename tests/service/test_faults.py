"""A Dask cluster whose workers are killed, stopped, short of memory, or of other versions: right bits, or a line."""

import logging
import os
import re
import signal
import sys
import threading
import time

import numpy as np
import pytest
from distributed import get_worker
from processes import wait_until
from service.clusters import (
    N_ROWS,
    DaskCluster,
    Heard,
    SlowMoments,
    assert_same_bits,
    plan_of,
    result_of,
    rows_in,
    say,
)

import lazypipe as lp
from lazypipe.engines.versions import own_versions

TTL = 10  # seconds; conf/dask.yaml has 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with DaskCluster(tmp_path_factory.mktemp("dask"), DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL=f"{TTL}s") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return rows_in(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def worker(cluster):
    """Start workers by name, which end with the test."""
    started = []

    def start(name, *options, **env):
        started.append(cluster.worker(name, *options, **env))
        return started[-1]

    yield start
    for one in started:
        cluster.end(one)


def pid_of(engine, name):
    """The process of a worker that a nanny has started."""
    found = engine.client.run(os.getpid)
    workers = engine.client.scheduler_info(n_workers=-1)["workers"]
    return next(pid for address, pid in found.items() if workers[address]["name"] == name)


def test_what_a_worker_logs_reaches_the_driver_with_its_name(cluster, worker):
    worker("left"), worker("right")
    heard = Heard()
    with cluster.engine(2, heard) as engine:
        assert list(engine.map(say, ["one", "two"], plan_of(200))) == ["one", "two"]
        wait_until(lambda: len(heard.said) >= 4, 20, "lines")
    said = {(event.worker in ("left", "right"), event.level, event.text) for event in heard.said}
    assert said == {(True, logging.INFO, "read one"), (True, logging.WARNING, "slow one")} | {
        (True, logging.INFO, "read two"), (True, logging.WARNING, "slow two")}  # fmt: skip


@pytest.mark.parametrize("options", [(), ("--no-nanny",)], ids=["nanny", "no nanny"])
def test_a_killed_worker_costs_no_bit_and_is_told(cluster, worker, rows, options):
    matrix, wanted = rows
    worker("steady"), worker("victim", *options)
    heard = Heard(8, lambda: os.kill(victim, signal.SIGKILL))
    with cluster.engine(2, heard) as engine:
        victim = pid_of(engine, "victim")
        assert_same_bits(engine.fold(SlowMoments(), matrix, plan_of()), wanted)
        print(f"worker killed: right answer {time.monotonic() - heard.at:.1f} s later")
        wait_until(lambda: heard.texts("victim"), 20, "who was lost")
        if not options:
            wait_until(lambda: any("came back" in text for text in heard.texts("victim")), 60, "who came back")
    lost = heard.texts("victim")[0]
    assert re.match(r"lost(, \d+ tasks? on it begin again elsewhere)? \(tcp://", lost), lost


def test_a_worker_that_stands_still_for_a_while_costs_only_the_time(cluster, worker, rows):
    matrix, wanted = rows
    worker("steady"), worker("slow")

    def stop():
        os.kill(slow, signal.SIGSTOP)
        threading.Timer(4, os.kill, (slow, signal.SIGCONT)).start()

    heard = Heard(8, stop)
    with cluster.engine(2, heard) as engine:
        slow = pid_of(engine, "slow")
        assert_same_bits(engine.fold(SlowMoments(), matrix, plan_of()), wanted)
        assert time.monotonic() - heard.at > 3  # its task was waited for
        assert pid_of(engine, "slow") == slow
    assert not [text for text in heard.texts() if text.startswith("lost")]


def test_a_worker_that_stands_still_for_good_is_told_and_taken_for_dead(cluster, worker, rows, monkeypatch):
    matrix, wanted = rows
    monkeypatch.setattr("lazypipe.engines.dask_watch.SILENT_SECONDS", 3.0)
    worker("steady"), worker("frozen")
    heard = Heard(8, lambda: os.kill(frozen, signal.SIGSTOP))
    with cluster.engine(2, heard) as engine:
        frozen = pid_of(engine, "frozen")
        assert_same_bits(engine.fold(SlowMoments(), matrix, plan_of()), wanted)
        seconds = time.monotonic() - heard.at
        print(f"worker stopped for good: right answer {seconds:.1f} s later (worker-ttl {TTL} s)")
        assert seconds < 5 * TTL
        assert engine.peak_memory() > 0
    silent = heard.texts("frozen")[0]
    assert re.match(rf"has not been heard of for \d s, \d tasks? on it: taken for dead {TTL} to", silent), silent
    assert any(text.startswith("lost") for text in heard.texts("frozen"))


@pytest.mark.parametrize("options", [(), ("--no-nanny",)], ids=["nanny", "no nanny"])
def test_a_scheduler_that_was_told_to_wait_for_ever_does_not(tmp_path, rows, monkeypatch, options):
    matrix, wanted = rows
    monkeypatch.setattr("lazypipe.engines.dask_watch.SILENT_SECONDS", 3.0)
    monkeypatch.setattr("lazypipe.engines.dask_watch.DEAD_SECONDS", 8.0)
    with DaskCluster(tmp_path, DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="None") as cluster:
        cluster.worker("steady"), cluster.worker("frozen", *options)
        heard = Heard(8, lambda: os.kill(frozen, signal.SIGSTOP))
        with cluster.engine(2, heard) as engine:
            frozen = pid_of(engine, "frozen")
            assert_same_bits(engine.fold(SlowMoments(), matrix, plan_of()), wanted)
    assert "taken for dead 8 s after its last word" in heard.texts("frozen")[0]


def test_a_worker_out_of_memory_is_named_with_its_task_and_the_bytes_of_the_plan(cluster, worker, rows):
    """The statistic asks for more than it has told the plan; the nanny ends the worker, four times."""
    matrix, _ = rows
    worker("small", "--memory-limit", "600MiB")
    heard = Heard()
    with cluster.engine(1, heard) as engine, pytest.raises(lp.EngineError) as caught:
        engine.fold(Hungry(seconds=0.0, at=700), matrix, plan_of())
    message = str(caught.value)
    print(message)
    assert "\n" not in message
    assert re.match(
        r"dask: workers died 4 times, the last one small \(tcp://\S+\), at "
        r'"pass 1", task 8 of 32 \(rows 700 to 800\), '
        r"(out of memory at \d+MiB|most likely out of memory); "
        r"the plan allows 1MiB a task and 1\.\dMiB in all, beside the [\d.]+[MG]iB of the libraries\. Lower the budget",
        message,
    )
    assert any(re.match(r"ended by its nanny: its memory was \d+MiB of its limit of 600MiB", t) for t in heard.texts())


class Hungry(SlowMoments):
    """Takes memory until its worker is ended."""

    def measure(self, block):
        if block.rows.start == self.at:
            kept = [bytearray(os.urandom(2**20)) * 16 for _ in range(64)]
            time.sleep(30)
            del kept
        return super().measure(block)


def test_a_task_that_is_refused_memory_is_named(cluster, worker, rows):
    matrix, wanted = rows
    worker("one")
    with cluster.engine(1) as engine:
        with pytest.raises(lp.EngineError) as caught:
            engine.fold(SlowMoments(seconds=0.0, grab=2**50, at=300), matrix, plan_of())
        assert_same_bits(engine.fold(SlowMoments(seconds=0.0), matrix, plan_of()), wanted)  # and it goes on
    assert re.match(
        r'dask: the worker one had no memory for "pass 1", task 4 of 32 \(rows 300 to 400\): '
        r"Unable to allocate 1.00 PiB .*; the plan allows 1MiB a task and .*Lower the budget",
        str(caught.value),
    ), caught.value


PRETENDS = """
import platform
import {package}

{package}.{attribute} = {value}
"""


@pytest.mark.parametrize(
    ("package", "attribute", "value", "shown"),
    [
        ("numpy", "__version__", "'1.0.1'", "numpy 1.0.1"),
        ("lazypipe", "__version__", "'1.0.1'", "lazypipe 1.0.1"),
        ("platform", "python_version", "lambda: '1.0.1'", "Python 1.0"),
    ],
    ids=["numpy", "lazypipe", "Python"],
)
def test_a_worker_of_another_version_is_named_before_anything_starts(
    cluster, worker, tmp_path, package, attribute, value, shown
):
    pretends = PRETENDS.format(package=package, attribute=attribute, value=value)
    (tmp_path / "sitecustomize.py").write_text(pretends)
    worker("same")
    paths = os.pathsep.join([str(tmp_path), cluster.env["PYTHONPATH"]])
    with cluster.engine(1) as engine:
        worker("other", PYTHONPATH=paths)
        wait_until(lambda: len(engine.client.scheduler_info(n_workers=-1)["workers"]) == 2, 60, "both workers")
    begun = time.monotonic()
    with pytest.raises(lp.EngineError) as caught:
        lp.open_engine("dask", address=cluster.address)
    assert time.monotonic() - begun < 10
    own = own_versions()
    ours = {"numpy": own.numpy, "lazypipe": own.lazypipe, "platform": ".".join(own.python.split(".")[:2])}[package]
    name = shown.split()[0]
    assert re.fullmatch(
        rf"dask: the worker at tcp://\S+ has {shown}, the driver {ours}\. Install {name} {ours} in the environment "
        r"that the worker runs in, and start the worker again\.",
        str(caught.value),
    ), caught.value


def where(task):
    return get_worker().name


OTHER_LAZYPIPE = """
import lazypipe
from lazypipe.engines import dask_worker

lazypipe.__version__ = '1.0.1'
dask_worker.do_run = lambda run, statistic: None
"""


@pytest.mark.parametrize(
    ("pretends", "told"),
    [("import numpy\n\nnumpy.__version__ = '1.0.1'\n", "numpy"), (OTHER_LAZYPIPE, "lazypipe")],
    ids=["numpy", "lazypipe"],
)
def test_a_worker_of_another_version_that_comes_later_gets_no_task(cluster, worker, rows, tmp_path, pretends, told):
    """One of another lazypipe fails each task that it gets until it is found out."""
    matrix, wanted = rows
    (tmp_path / "sitecustomize.py").write_text(pretends)
    paths = os.pathsep.join([str(tmp_path), cluster.env["PYTHONPATH"]])
    worker("same")
    heard = Heard(4, lambda: worker("other", PYTHONPATH=paths))
    with cluster.engine(1, heard) as engine:
        deadline = time.monotonic() + 120
        while not heard.texts("other")[1:]:
            assert time.monotonic() < deadline, heard.said
            assert_same_bits(engine.fold(SlowMoments(seconds=0.05), matrix, plan_of()), wanted)
        assert set(engine.map(where, range(20), plan_of(2_000))) == {"same"}
        assert_same_bits(engine.fold(SlowMoments(seconds=0.0), matrix, plan_of()), wanted)
        assert len(engine.client.scheduler_info(n_workers=-1)["workers"]) == 2  # who is left to others
        worker("third")
        wait_until(lambda: heard.texts("third"), 60, "a good one")
        assert set(engine.map(where, range(20), plan_of(2_000))) == {"same", "third"}
    joined, line = heard.texts("other")
    assert joined.startswith("joined")
    has = rf"has {told} 1\.0\.1, the driver \S+\. Install {told} "
    assert re.match(rf"gets no task of this run\. dask: the worker at tcp://\S+ {has}", line), line
    assert next(event.level for event in heard.said if event.text == line) == logging.WARNING


def test_the_last_worker_of_our_versions_comes_back_while_a_stranger_is_there(cluster, worker, rows, tmp_path):
    matrix, wanted = rows
    (tmp_path / "sitecustomize.py").write_text("import sys\n\nsys.modules['lazypipe'] = None\n")
    paths = os.pathsep.join([str(tmp_path), cluster.env["PYTHONPATH"]])
    worker("same")
    heard = Heard()
    with cluster.engine(1, heard) as engine:
        worker("other", PYTHONPATH=paths)
        wait_until(lambda: heard.texts("other")[1:], 60, "what it is told of")
        pid = pid_of(engine, "same")
        heard.n, heard.then = heard.n_done + 4, lambda: os.kill(pid, signal.SIGKILL)
        assert_same_bits(engine.fold(SlowMoments(), matrix, plan_of()), wanted)
        assert len(engine.client.scheduler_info(n_workers=-1)["workers"]) == 2  # a task of ours would have ended it
        print(f"the only good worker killed: right answer {time.monotonic() - heard.at:.1f} s later")


def test_no_worker_left_is_told_instead_of_waiting_for_ever(cluster, worker, rows, monkeypatch):
    matrix, _ = rows
    monkeypatch.setattr("lazypipe.engines.dask_watch.NONE_SECONDS", 3.0)
    only = worker("only", "--no-nanny")
    with cluster.engine(1, Heard(4, lambda: os.kill(only.pid, signal.SIGKILL))) as engine:
        with pytest.raises(lp.EngineError, match=r"no worker is left at tcp://\S+, and none came for \d+ s\. Look at"):
            engine.fold(SlowMoments(), matrix, plan_of())
        worker("next")
        wait_until(lambda: engine.watch.failure is None, 60, "another worker")
        assert engine.fold(SlowMoments(seconds=0.0), matrix, plan_of()).weight == N_ROWS


DRIVER = """
import sys
from service.clusters import SlowMoments, plan_of
import lazypipe as lp
from lazypipe.progress import Progress, TaskDone
address, path = sys.argv[1:]
hear = lambda event: print("done", flush=True) if isinstance(event, TaskDone) else None
with lp.open_engine("dask", address=address, memory="64MiB", progress=Progress((hear,))) as engine:
    engine.fold(SlowMoments(), lp.open_matrix(path), plan_of())
"""


def test_a_killed_driver_leaves_no_task_on_the_cluster(cluster, worker, rows):
    matrix, wanted = rows
    worker("left"), worker("right")
    with cluster.engine(2) as engine:
        driver = cluster.start(sys.executable, "-c", DRIVER, cluster.address, matrix.uri)
        wait_until(lambda: driver.log.read_text().count("done") > 4, 60, "the driver to begin")
        os.kill(driver.pid, signal.SIGKILL)
        begun = time.monotonic()
        wait_until(lambda: cluster.left(engine) == 0, 60, "the scheduler to forget its tasks")
        print(f"driver killed: no task left {time.monotonic() - begun:.1f} s later")
        assert_same_bits(engine.fold(SlowMoments(seconds=0.0), matrix, plan_of()), wanted)


def test_a_killed_scheduler_is_told_in_a_line_soon_and_what_was_done_is_kept(tmp_path):
    decay = np.arange(1, 1001)[:, None] ** -0.5  # slow, so that there are passes
    x = decay * np.random.default_rng(0).normal(size=(1_000, 20_000))
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    options = ["--n-components", 4, "--solver", "gradient", "--tracking.enabled", "false", "--engine.memory", "256MiB"]
    command = [sys.executable, "-m", "jobs", "pca", "--source", tmp_path / "x.npy", *options]
    state = ["--state", tmp_path / "state"]
    with DaskCluster(tmp_path) as cluster:
        cluster.worker("one")
        cluster.engine(1).close()
        on_dask = ["--out", tmp_path / "never", "--engine.kind", "dask", "--engine.address", cluster.address]
        job = cluster.start(*command, *state, *on_dask)
        wait_until(lambda: list((tmp_path / "state").glob("*.state")) or job.poll() is not None, 120, "a state")
        os.kill(cluster.scheduler.pid, signal.SIGKILL)
        begun = time.monotonic()
        assert job.wait(60) == 2, job.log.read_text()
        print(f"scheduler killed: told {time.monotonic() - begun:.1f} s later")
        said = [line for line in job.log.read_text().splitlines() if not line.startswith("pca: ")]
        assert len(said) == 1, said
        assert re.search(r"dask: the scheduler at tcp://\S+ has gone, or cannot be reached any more\. Start", said[0])
        assert not (tmp_path / "never").exists() and list((tmp_path / "state").glob("*.state"))
        again = cluster.start(*command, *state, "--out", tmp_path / "again", "--engine.kind", "serial")
        wanted = cluster.start(*command, "--out", tmp_path / "wanted", "--engine.kind", "serial")
        assert again.wait(300) == 0 and wanted.wait(300) == 0, again.log.read_text() + wanted.log.read_text()
    for name in ("components.npy", "explained_variance.npy"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "wanted" / name).read_bytes()
    assert len(result_of(tmp_path / "again")["history"]) == len(result_of(tmp_path / "wanted")["history"])
