"""The same job, as a person types it, in four places: the same bits of components."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from service.clusters import BIN, ROOT, DaskCluster, SparkCluster, environment, needs_java, result_of

JOB = ["--n-components", "4", "--solver", "gram", "--tracking.enabled", "false", "--engine.memory", "64MiB"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """4 components above noise, in more columns than rows."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(120, 4)) * [9, 6, 4, 3] @ rng.normal(size=(4, 12_000))
    path = tmp_path_factory.mktemp("source") / "wide.npy"
    np.save(path, (signal + rng.normal(2, 1, (120, 12_000))).astype(np.float32))
    return path


def components(words, source, out, env=None):
    """Of a command line that ended well."""
    command = [*words, "--source", source, *JOB, "--out", out]
    done = subprocess.run(
        [str(word) for word in command], cwd=out.parent, capture_output=True, text=True, check=False, timeout=300,
        env=env or environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    return Path(out, "components.npy").read_bytes(), result_of(out)["engine"]


@pytest.fixture(scope="module")
def on_dask(source, tmp_path_factory):
    """In-process Dask: what the others are compared with."""
    out = tmp_path_factory.mktemp("dask") / "result"
    found, engine = components([sys.executable, "-m", "jobs", "pca", "--engine.kind", "dask"], source, out)
    assert engine.startswith("dask: ") and engine.endswith("threads of this process")
    return found


def test_a_dask_cluster_gives_the_bits_of_dask_in_the_process(source, on_dask, tmp_path):
    with DaskCluster(tmp_path) as cluster:
        cluster.worker("left"), cluster.worker("right")
        cluster.engine(2).close()
        words = [sys.executable, "-m", "jobs", "pca", "--engine.kind", "dask", "--engine.address", cluster.address]
        found, engine = components(words, source, tmp_path / "result")
    assert engine == f"dask: 2 workers x 1 threads at {cluster.address}"
    assert found == on_dask


@needs_java
def test_spark_on_this_machine_gives_the_same_bits(source, on_dask, tmp_path):
    words = [sys.executable, "-m", "jobs", "pca", "--engine.kind", "spark"]
    found, engine = components(words, source, tmp_path / "result")
    assert engine.endswith("at local[*]")
    assert found == on_dask


@needs_java
def test_a_standalone_spark_cluster_gives_the_same_bits(source, on_dask, tmp_path):
    with SparkCluster(tmp_path) as cluster:
        words = [BIN / "spark-submit", "--master", cluster.address, "--conf", f"spark.pyspark.python={sys.executable}",
                 ROOT / "jobs" / "pca.py", "--engine.kind", "spark"]  # fmt: skip
        found, engine = components(words, source, tmp_path / "result", cluster.env | {"PYTHONPATH": os.fspath(ROOT)})
        applications = cluster.state()["completedapps"]
    assert engine == f"spark: 2 cores at {cluster.address}"
    assert found == on_dask
    assert [application["name"] for application in applications] == ["lazypipe"]
