"""Jobs submitted to a Spark cluster whose workers have no lazypipe: it is shipped, as a .zip or in an environment."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from processes import free_ports, listens, process, ready
from service.clusters import BIN, ROOT, needs_java

from lazypipe.shipping import pack

PACKAGES = Path(np.__file__).parents[1]
PCA = ("--n-components", "4", "--solver", "gradient", "--tol", "1e-3", "--engine.memory", "64MiB")

pytestmark = needs_java


@pytest.fixture(scope="module")
def bare(tmp_path_factory, env):
    """A Python with every package of this one but lazypipe: path files of another folder are not read."""
    folder = tmp_path_factory.mktemp("bare") / "environment"
    venv.create(folder, symlinks=True, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "packages.pth").write_text(f"{PACKAGES}\n")
    python = folder / "bin" / "python"
    alone = [python, "-c", "import numpy, lazypipe"]
    found = subprocess.run(alone, cwd="/", env=env, capture_output=True, text=True, check=False)
    assert "No module named 'lazypipe'" in found.stderr
    return python


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return pack(tmp_path_factory.mktemp("dist") / "lazypipe.zip")


@pytest.fixture(scope="module")
def env():
    """Of servers and of who submits: nothing of the checkout is on the path."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYSPARK_PYTHON")}
    return kept | {"SPARK_LOCAL_IP": "127.0.0.1", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def master(tmp_path_factory, env):
    """A standalone master with one worker of two cores."""
    folder = tmp_path_factory.mktemp("spark")
    port, page = free_ports(2)
    spark, name = BIN / "spark-class", "org.apache.spark.deploy"
    address = f"spark://127.0.0.1:{port}"
    serve = (spark, f"{name}.master.Master", "--host", "127.0.0.1", "--port", port, "--webui-port", page)
    labour = (spark, f"{name}.worker.Worker", "-c", "2", "-m", "1g", "-d", folder, "--host", "127.0.0.1")
    with process(*serve, cwd=folder, env=env) as served:
        ready(served, lambda: listens(port))
        with process(*labour, address, cwd=folder, env=env) as working:
            ready(working, lambda: "Successfully registered with master" in working.log.read_text())
            yield address


@pytest.fixture(scope="module")
def matrix_file(tmp_path_factory):
    x = np.random.default_rng(0).normal(2, 1, (150, 8_000)).astype(np.float32)
    path = tmp_path_factory.mktemp("data") / "x.npy"
    np.save(path, x)
    return path


@pytest.fixture(scope="module")
def reference(matrix_file, tmp_path_factory):
    """The components on this machine alone."""
    out = tmp_path_factory.mktemp("reference") / "result"
    command = (sys.executable, ROOT / "jobs" / "pca.py", "--source", matrix_file, *PCA, "--engine.kind", "serial")
    subprocess.run([*command, "--tracking.enabled", "false", "--out", out], check=True, cwd=out.parent)
    return np.load(out / "components.npy")


def submitted(*options, job, env, cwd, seconds=900):
    return subprocess.run(
        [BIN / "spark-submit", *options, ROOT / "jobs" / f"{job[0]}.py", *map(str, job[1:])],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


def pythons(worker):
    return ("--conf", f"spark.pyspark.python={worker}", "--conf", f"spark.pyspark.driver.python={sys.executable}")


def test_the_package_has_the_same_bytes_every_time_and_imports_alone(package, bare, tmp_path):
    again = pack(tmp_path / "again.zip")
    assert again.read_bytes() == package.read_bytes()
    assert package.stat().st_size < 5 * 2**20
    code = "import lazypipe as lp; print(lp.__file__); lp.PCA; lp.open_engine; lp.read_spikes"
    env = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run([bare, "-c", code], cwd="/", env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(package))


def test_compiled_loops_run_from_the_package_where_nothing_can_be_kept(package, bare):
    """No folder of the user's, nothing beside the sources: a container whose user owns nothing."""
    code = (
        "import numpy as np; from lazypipe.stats.kept import KEPT; from lazypipe.models.sweep import minibatch_kernel;"
        "from lazypipe.stats.row_kernel import prepare; print(KEPT, len(prepare.signatures) > 0)"
    )
    env = {**os.environ, "PYTHONPATH": str(package), "HOME": "/proc/no", "XDG_CACHE_HOME": "/proc/no"}
    done = subprocess.run([bare, "-c", code], cwd="/", env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_spark_submit_ships_the_package(master, bare, package, matrix_file, reference, env, tmp_path):
    options = ("--engine.kind", "spark", "--tracking.enabled", "false", "--out", "out")
    job = ("pca", "--source", matrix_file, *PCA, *options)
    done = submitted("--master", master, "--py-files", package, *pythons(bare), job=job, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert master in result["engine"]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "components.npy"), reference)


def test_compiled_loops_run_on_workers_that_were_sent_the_package(master, bare, package, env, tmp_path):
    """Averages around spikes are made by numba's loops."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "recording.npy", rng.normal(size=(20_000, 3)).astype(np.float32))
    np.savez(tmp_path / "spikes.npz", samples=np.sort(rng.integers(200, 19_000, 300)))
    options = ("--source", tmp_path / "recording.npy", "--spikes", tmp_path / "spikes.npz", "--sampling-rate", "1000")
    job = ("sta", *options, "--window", "-20", "10", "--tracking.enabled", "false")
    cluster = ("--master", master, "--py-files", package, *pythons(bare))
    done = submitted(*cluster, job=(*job, "--engine.kind", "spark", "--out", "out"), env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "counts.csv").exists()


def test_an_environment_is_shipped_whole(master, package, matrix_file, reference, env, tmp_path):
    """Packed by venv-pack, with lazypipe inside; its other packages are left where they are, for they are gigabytes."""
    environment, archive = tmp_path / "environment", tmp_path / "environment.tar.gz"
    venv.create(environment, symlinks=True, with_pip=False)
    site = next(environment.glob("lib/python*/site-packages"))
    (site / "packages.pth").write_text(f"import sys; sys.path.append({str(PACKAGES)!r})\n")
    with zipfile.ZipFile(package) as sources:
        sources.extractall(site)
    subprocess.run([BIN / "venv-pack", "-q", "-p", environment, "-o", archive], check=True, cwd=tmp_path)
    shutil.rmtree(environment)
    options = ("--engine.kind", "spark", "--tracking.enabled", "false", "--out", "out")
    job = ("pca", "--source", matrix_file, *PCA, *options)
    cluster = ("--master", master, "--archives", f"{archive}#environment", *pythons("./environment/bin/python"))
    done = submitted(*cluster, job=job, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "components.npy"), reference)


def test_a_flow_ships_the_package(master, bare, package, matrix_file, reference, env, tmp_path):
    """No spark-submit: Spark's own variable for the options of a driver that is plain Python."""
    config = {
        "source": str(matrix_file),
        "n_components": 4,
        "solver": "gradient",
        "tol": 1e-3,
        "out": str(tmp_path / "out"),
        "engine": {"kind": "spark", "address": master, "memory": "64MiB"},
        "tracking": {"enabled": False},
    }
    code = (
        "import json, sys; from flows.pca import pca; from jobs.pca import PCAConfig;"
        "pca(PCAConfig(**json.loads(sys.argv[1])))"
    )
    shipping = {
        "PYSPARK_SUBMIT_ARGS": f"--py-files {package} pyspark-shell",
        "PYSPARK_PYTHON": str(bare),
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
        "DO_NOT_TRACK": "1",
    }
    without_server = {name: value for name, value in env.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    command = [sys.executable, "-c", code, json.dumps(config)]
    with process(*command, cwd=tmp_path, env=without_server | shipping) as driver:
        code = driver.wait(1800)
    assert code == 0, driver.log.read_text()
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "components.npy"), reference)
