"""A Dask cluster and a standalone Spark master: the same bits, and what happens when things go wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import venv
from contextlib import ExitStack
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import scipy.sparse as sp

import lazypipe as lp
from lazypipe import plan
from lazypipe.engines import resident
from lazypipe.io import open_matrix

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.service
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find tests


def fitted(path, engine):
    return lp.PCA(4, solver="gradient", tol=1e-3).fit(path, engine=engine)


def reference(path, memory):
    with lp.open_engine("serial", memory=memory) as engine:
        return fitted(path, engine)


def test_dask_workers_give_the_bits_of_serial(dask_scheduler, dask_worker, matrix_file):
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(dask_worker("--nthreads", "1", "--memory-limit", "1GiB"))
        engine = stack.enter_context(lp.open_engine("dask", address=dask_scheduler, memory="64MiB"))
        pca = fitted(matrix_file, engine)
        assert "workers x 1 threads at tcp://127.0.0.1" in engine.describe()
        assert engine.peak_memory() > 2**20
    np.testing.assert_array_equal(pca.components_, reference(matrix_file, "64MiB").components_)


def test_the_budget_of_a_dask_cluster_is_its_workers_limit_less_the_libraries(dask_scheduler, dask_worker):
    with dask_worker("--nthreads", "1", "--memory-limit", "2GiB"):
        with lp.open_engine("dask", address=dask_scheduler) as engine:
            assert 2**28 < engine.host.memory < 0.8 * 2**31 - 2**26
        with pytest.raises(
            lp.MemoryPlanError, match="exceed the workers' limit of 2GiB, of which Dask leaves 80%"
        ) as told:
            lp.open_engine("dask", address=dask_scheduler, memory="1500MiB")
        fits = re.search(r"Lower the budget to (\d+MiB)", str(told.value))[1]
        lp.open_engine("dask", address=dask_scheduler, memory=fits).close()


def keep(path):
    """What a run leaves on a worker: the decompressed file."""
    with open_matrix(path).open():
        return resident.resident_nbytes()


def test_what_a_run_left_on_dask_workers_is_no_library_of_the_next(dask_scheduler, dask_worker, tmp_path):
    n = 2**23
    rows = sp.csr_array((np.ones(n), np.zeros(n, np.int32), np.arange(n + 1)), shape=(n, 1))
    sp.save_npz(tmp_path / "x.npz", rows)  # 160 MiB decompressed
    with dask_worker("--nthreads", "1", "--memory-limit", "2GiB", "--no-nanny"):
        with lp.open_engine("dask", address=dask_scheduler) as engine:
            (left,) = engine.client.run(keep, tmp_path / "x.npz").values()
        with lp.open_engine("dask", address=dask_scheduler) as engine:
            (now,) = engine.client.run(resident.resident_nbytes).values()
    assert now < left - 2**26


def test_a_killed_dask_worker_costs_no_answer(dask_scheduler, dask_worker, tmp_path):
    x = np.random.default_rng(0).normal(size=(1_000, 60_000)).astype(np.float32)  # 240 MB: passes take a while
    np.save(tmp_path / "x.npy", x)
    with ExitStack() as stack:
        stack.enter_context(dask_worker("--nthreads", "1"))
        victim = stack.enter_context(dask_worker("--nthreads", "1", "--no-nanny"))
        killed = []

        def kill(event):
            if isinstance(event, lp.progress.TaskDone) and not killed:
                killed.append(event)
                threading.Timer(0.05, os.kill, (victim.pid, signal.SIGKILL)).start()

        progress = lp.progress.Progress((kill,))
        while True:  # both workers are there
            engine = lp.open_engine("dask", address=dask_scheduler, memory="64MiB", progress=progress)
            if len(engine.client.scheduler_info()["workers"]) == 2:
                break
            engine.close()
            time.sleep(0.2)
        with engine:
            result = fitted(tmp_path / "x.npy", engine)
    assert killed and victim.wait(10) == -signal.SIGKILL
    np.testing.assert_array_equal(result.components_, reference(tmp_path / "x.npy", "64MiB").components_)


def killing(pid, n):
    """Progress that kills a process at the n-th task."""
    left = [n]

    def kill(event):
        if isinstance(event, lp.progress.TaskDone):
            left[0] -= 1
            if left[0] == 0:
                os.kill(pid(), signal.SIGKILL)

    return lp.progress.Progress((kill,))


def opened_with(n_workers, address, progress):
    """An engine on a cluster whose workers are all there."""
    while True:
        engine = lp.open_engine("dask", address=address, memory="16MiB", progress=progress)
        if len(engine.client.scheduler_info()["workers"]) == n_workers:
            return engine
        engine.close()
        time.sleep(0.2)


@pytest.fixture
def many_runs(tmp_path, monkeypatch):
    """16 MB of float64: by the name of where the answer is kept, 32 runs of a fold, or 14 tasks of tiles."""
    monkeypatch.setattr(plan, "RUN_NBYTES", 2**18)
    x = np.random.default_rng(0).normal(3, 1, (20_000, 100))
    np.save(tmp_path / "long.npy", x)
    np.save(tmp_path / "wide.npy", x.reshape(4_000, 500))
    return {"state": tmp_path / "long.npy", "out": tmp_path / "wide.npy"}


@pytest.mark.parametrize("job", ["state", "out"])
@pytest.mark.parametrize("n", [1, 7])
def test_a_dask_worker_killed_in_a_checkpointed_fold_or_in_tiles(
    dask_scheduler, dask_worker, many_runs, tmp_path, job, n
):
    with ExitStack() as stack:
        stack.enter_context(dask_worker("--nthreads", "1"))
        victim = stack.enter_context(dask_worker("--nthreads", "1", "--no-nanny"))
        engine = stack.enter_context(opened_with(2, dask_scheduler, killing(lambda: victim.pid, n)))
        found = lp.covariance(many_runs[job], engine=engine, **{job: tmp_path / "found"})
        assert victim.wait(10) == -signal.SIGKILL
    with lp.open_engine("serial", memory="16MiB") as engine:
        wanted = lp.covariance(many_runs[job], engine=engine, **({"out": tmp_path / "wanted"} if job == "out" else {}))
    np.testing.assert_array_equal(found.covariance[:, :], wanted.covariance[:, :])
    np.testing.assert_array_equal(found.mean, wanted.mean)


def test_the_only_dask_worker_killed_and_started_again_by_its_nanny(dask_scheduler, dask_worker, many_runs, tmp_path):
    """With it goes all that was sent to the workers: it is sent again."""
    with dask_worker("--nthreads", "1"):
        worker = [None]
        engine = opened_with(1, dask_scheduler, killing(lambda: worker[0], 7))
        with engine:
            (worker[0],) = engine.client.run(os.getpid).values()
            found = lp.covariance(many_runs["state"], engine=engine, state=tmp_path / "state")
            assert list(engine.client.run(os.getpid).values()) != worker
    with lp.open_engine("serial", memory="16MiB") as engine:
        wanted = lp.covariance(many_runs["state"], engine=engine)
    np.testing.assert_array_equal(found.covariance, wanted.covariance)


def test_a_dask_worker_without_lazypipe_is_named(dask_scheduler, dask_worker, tmp_path):
    """A Python with everything but lazypipe: the packages of this one by a path file, not our checkout."""
    venv.create(tmp_path / "bare", symlinks=True)
    site = next((tmp_path / "bare").glob("lib/python*/site-packages"))
    packages = Path(np.__file__).parents[1]
    (site / "packages.pth").write_text(f"{packages}\n")  # .pth files of another folder are not read
    with (
        dask_worker("--nthreads", "1", python=tmp_path / "bare" / "bin" / "python"),
        pytest.raises(lp.EngineError, match=r"worker at tcp://\S+ cannot import lazypipe\. Install lazypipe"),
    ):
        lp.open_engine("dask", address=dask_scheduler)


def test_a_dask_scheduler_without_workers_is_told(dask_scheduler):
    begun = time.monotonic()
    with pytest.raises(lp.EngineError, match="has no workers"):
        lp.open_engine("dask", address=dask_scheduler)
    assert time.monotonic() - begun < 12


def run_python(code, *arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )


ON_SPARK = """
import sys, numpy as np, lazypipe as lp
path, out, master = sys.argv[1:]
with lp.open_engine("spark", address=master, memory="64MiB") as engine:
    pca = lp.PCA(4, solver="gradient", tol=1e-3).fit(path, engine=engine)
    print(engine.describe())
np.save(out, pca.components_)
"""


def test_a_spark_master_gives_the_bits_of_serial(spark_master, matrix_file, tmp_path):
    done = run_python(ON_SPARK, matrix_file, tmp_path / "components.npy", spark_master, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert spark_master in done.stdout
    np.testing.assert_array_equal(np.load(tmp_path / "components.npy"), reference(matrix_file, "64MiB").components_)


def test_spark_submit_runs_a_job_against_a_master(spark_master, spark_env, matrix_file, tmp_path):
    done = subprocess.run(
        [
            BIN / "spark-submit",
            "--master",
            spark_master,
            "--conf",
            f"spark.pyspark.python={sys.executable}",
            ROOT / "jobs" / "pca.py",
            "--source",
            matrix_file,
            "--n-components",
            "4",
            "--solver",
            "gradient",
            "--tol",
            "1e-3",
            "--engine.kind",
            "spark",
            "--engine.memory",
            "64MiB",
            "--tracking.enabled",
            "false",
            "--out",
            tmp_path / "result",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=spark_env,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result" / "result.json").read_text())
    assert spark_master in json.dumps(result)
    np.testing.assert_array_equal(
        np.load(tmp_path / "result" / "components.npy"), reference(matrix_file, "64MiB").components_
    )


def test_a_spark_worker_without_lazypipe_is_told(tmp_path, matrix_file):
    venv.create(tmp_path / "bare", symlinks=True)
    site = next((tmp_path / "bare").glob("lib/python*/site-packages"))
    (site / "packages.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    code = "import lazypipe as lp; lp.open_engine('spark')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYSPARK_PYTHON": str(tmp_path / "bare" / "bin" / "python")},
    )
    assert done.returncode != 0
    assert "cannot import lazypipe" in done.stderr.splitlines()[-1]
    assert "Install lazypipe" in done.stderr.splitlines()[-1]
