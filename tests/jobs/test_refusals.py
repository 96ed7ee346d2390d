"""What becomes of a job that is refused or interrupted; the lines themselves are in tests/bad_inputs.py."""

import time

import numpy as np

from jobs._cli import command
from jobs._config import read_yaml
from jobs.pca import PCAConfig

PCA = ("pca", "--n-components", "2", "--out", "new/out", "--tracking.enabled", "false", "--source")


def write_nan(folder):
    rows = np.ones((20, 4), np.float32)
    rows[7, 2] = np.nan
    np.save(folder / "bad.npy", rows)


def test_an_address_where_nobody_listens(jobs):
    begun = time.monotonic()
    line = jobs.refused(*PCA, "rows.npy", "--engine.address", "tcp://127.0.0.1:9")
    assert line.startswith("EngineError: dask: no scheduler answers at tcp://127.0.0.1:9")
    assert time.monotonic() - begun < 12


def test_a_failed_run_is_tracked_as_failed(jobs):
    import mlflow

    write_nan(jobs.folder)
    done = jobs("pca", "--source", "bad.npy", "--n-components", "2", "--engine.kind", "serial", "--out", "out")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert not (jobs.folder / "out").exists()
    mlflow.set_tracking_uri(f"sqlite:///{jobs.folder}/mlflow.db")
    (run,) = mlflow.search_runs(experiment_names=["pca"], output_format="list")
    assert run.info.status == "FAILED"
    assert "NaN at row 7, column 2" in run.data.tags["error"]


def test_a_mapping_may_be_merged_into_another_and_changed_there(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("a: &a {k: 1, m: 1}\nb: &b {<<: *a, k: 2}\nc: {<<: *b, k: 3}\n")
    assert read_yaml(path) == {"a": {"k": 1, "m": 1}, "b": {"k": 2, "m": 1}, "c": {"k": 3, "m": 1}}


def test_debug_shows_the_traceback(jobs):
    done = jobs(*PCA, "no.npy", "--debug")
    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert "DataError" in done.stderr.splitlines()[-1]


def interrupted(config):
    raise KeyboardInterrupt


def test_ctrl_c_ends_in_130_without_a_traceback(capsys):
    assert command("pca", PCAConfig, interrupted, ["--source", "rows.npy"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_ctrl_c_says_that_a_state_is_kept_wherever_it_was_named(tmp_path, capsys):
    (tmp_path / "pca.yaml").write_text("source: rows.npy\nstate: st\n")
    for given in (["--source", "rows.npy", "--state=st"], ["--config", str(tmp_path / "pca.yaml")]):
        assert command("pca", PCAConfig, interrupted, given) == 130
        told = capsys.readouterr().err
        assert told == "Interrupted.\nWhat was done is kept: the same command goes on from there.\n"
    assert command("pca", PCAConfig, interrupted, ["--config", str(tmp_path / "pca.yaml"), "--state", "none"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"
