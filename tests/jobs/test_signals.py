"""SIGTERM, as a cluster or a container sends it, ends a job as Ctrl-C does."""

import signal
import subprocess
import sys
import time

import numpy as np
from mlflow import MlflowClient


def test_sigterm_leaves_no_result_and_marks_the_run(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(300, 400)))
    store = f"sqlite:///{tmp_path}/mlflow.db"
    command = [sys.executable, "-m", "jobs", "pca", "--source", "x.npy", "--solver", "deflation", "--tol", "1e-15"]
    command += ["--max-passes", "1000000", "--engine.kind", "serial", "--tracking.uri", store, "--out", "result"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as job:
        deadline = time.monotonic() + 60
        while "pass" not in job.stderr.readline():  # its first word of progress: the work goes on
            assert time.monotonic() < deadline
        job.send_signal(signal.SIGTERM)
        assert job.wait(20) == 128 + signal.SIGTERM
        assert "Traceback" not in job.stderr.read()
    assert not [path for path in tmp_path.iterdir() if "result" in path.name]
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("pca").experiment_id])
    assert run.info.status == "KILLED"
