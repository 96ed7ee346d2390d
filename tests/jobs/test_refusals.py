"""Bad input through the real command line: exit code 2, one line on stderr, nothing left behind."""

import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs._cli import command
from jobs.pca import PCAConfig

PCA = (
    "pca",
    "--source",
    "rows.npy",
    "--n-components",
    "2",
    "--out",
    "new/out",
    "--tracking.enabled",
    "false",
)

LINEAR = ("--source", "rows.npy", "--out", "new/out", "--tracking.enabled", "false")


def with_option(*option):
    return (*PCA, *option)


BAD_OPTIONS = {
    "unknown option": (
        with_option("--n-component", "3"),
        "--n-component: unknown option; the nearest is '--n-",
    ),
    "no value": (with_option("--seed"), "argument --seed: expected one argument"),
    "stray word": (with_option("3"), "3: unexpected argument"),
    "below its limit": (
        with_option("--n-components", "0"),
        "--n-components: '0': input should be greater than",
    ),
    "not a number": (with_option("--tol", "small"), "--tol: 'small': input should be a valid number"),
    "not a choice": (
        with_option("--engine.kind", "sprak"),
        "ConfigError: --engine.kind: 'sprak' is not one of serial, dask, spark.",
    ),
    "not a size": (with_option("--engine.memory", "lots"), "--engine.memory: 'lots' is no size"),
    "no source": (("pca", "--n-components", "2"), "--source: is missing; pass it, or write 'source: ...'"),
    "unknown job": (("pac",), "pac: no such job; the nearest is 'pca'. Jobs: pca, covariance"),
    "unplannable job": (("plan", "convert"), "convert: cannot be planned"),
    "missing config": (with_option("--config", "no.yaml"), "no.yaml: cannot be read: No such file"),
    "missing engine file": (with_option("--engine", "no.yaml"), "no.yaml: cannot be read: No such file"),
    "missing source": (with_option("--source", "no.npy"), "no.npy: no such file or directory"),
    "too many components": (with_option("--n-components", "9"), "rows.npy"),
    "memory": (with_option("--engine.memory", "1MiB"), "memory: 1MiB is too small"),
    "state in the result": (with_option("--state", "new/out/state"), "new/out/state lies in the result folder new/out"),
    "tiles in the result": (
        ("covariance", "--source", "rows.npy", "--tiles", "new/out/c.zarr", "--out", "new/out"),
        "new/out/c.zarr lies in the result folder new/out",
    ),
    "ddof": (
        ("covariance", "--source", "rows.npy", "--ddof", "60", "--out", "new/out"),
        "ddof=60 with 60 rows",
    ),
    "no target": (("linear", "--source", "rows.npy"), "--target: is missing; pass it"),
    "target column": (("linear", *LINEAR, "--target", "8"), "rows.npy has no column 8. Give 0 to 7"),
    "target file": (("linear", *LINEAR, "--target", "no.npy"), "no.npy: no such file"),
    "wide target": (("linear", *LINEAR, "--target", "rows.npy"), "has 8 columns, y must have one"),
    "negative ridge": (("linear", *LINEAR, "--target", "0", "--ridge", "-1"), "--ridge: '-1': input should be"),
    "ridge without end": (("linear", *LINEAR, "--target", "0", "--ridge", "inf"), "--ridge: 'inf': input should be"),
    "half a validation": (
        ("linear", *LINEAR, "--target", "y.npy", "--validation-source", "rows.npy"),
        "--validation-target: is missing; give the target of the validation_source",
    ),
    "the other half": (
        ("linear", *LINEAR, "--target", "0", "--validation-target", "0"),
        "--validation-target: has no validation_source",
    ),
    "residual ddof": (("linear", *LINEAR, "--target", "0", "--ddof", "60"), "ddof=60 with 60 rows"),
    "a folder that is no result": (with_option("--out", ".", "--overwrite"), ".: is no result of a job"),
    "bad spectrum": (
        ("generate", "--target", "new/a.npy", "--n-rows", "9", "--n-columns", "9", "--spectrum", "9,x"),
        "--spectrum: '9,x' is neither 1/i nor variances",
    ),
    "unknown target": (("convert", "--source", "rows.npy", "--target", "new/a.csv"), "cannot write '.csv'"),
    "target exists": (("convert", "--source", "rows.npy", "--target", "rows.npy"), "rows.npy: exists"),
    "no tracking store": (
        ("pca", "--source", "rows.npy", "--n-components", "2", "--tracking.uri", "http://127.0.0.1:9"),
        "EngineError: http://127.0.0.1:9: no MLflow store answers",
    ),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options(jobs, case):
    arguments, said = BAD_OPTIONS[case]
    assert said in jobs.refused(*arguments)


BAD_YAML = {
    "bad syntax": ("source: [rows.npy\nseed: 1", "bad.yaml: is not YAML at line 2"),
    "not a mapping": ("- rows.npy", "bad.yaml: must hold 'name: value' lines, found a list"),
    "unknown key": (
        "source: rows.npy\nn_componets: 3",
        "ConfigError: bad.yaml: n_componets: unknown name; the nearest is 'n_components'.",
    ),
    "unknown nested key": ("source: rows.npy\nengine: {kid: dask}", "bad.yaml: engine.kid: unknown name"),
    "bad choice": (
        "source: rows.npy\nengine: {kind: sprak}",
        "ConfigError: bad.yaml: engine.kind: 'sprak' is not one of serial, dask, spark.",
    ),
    "bad type": ("source: rows.npy\nn_components: many", "bad.yaml: n_components: 'many'"),
    "not a mapping inside": ("source: rows.npy\nengine: dask", "bad.yaml: engine: 'dask'"),
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_bad_config_files(jobs, case):
    text, said = BAD_YAML[case]
    (jobs.folder / "bad.yaml").write_text(text)
    assert said in jobs.refused("pca", "--config", "bad.yaml")


def write_nan(folder):
    rows = np.ones((20, 4), np.float32)
    rows[7, 2] = np.nan
    np.save(folder / "bad.npy", rows)


def write_constant(folder):
    np.save(folder / "bad.npy", np.full((20, 4), 3, np.float32))


def write_low_rank(folder):
    np.save(folder / "bad.npy", np.outer(np.arange(20.0), np.ones(4)).astype(np.float32))


BAD_DATA = {
    "empty": (lambda folder: np.save(folder / "bad.npy", np.empty((0, 4))), "bad.npy", "is empty"),
    "one dimension": (lambda folder: np.save(folder / "bad.npy", np.ones(4)), "bad.npy", "has 1 dimension"),
    "text": (lambda folder: np.save(folder / "bad.npy", np.array([["a"]])), "bad.npy", "text"),
    "unknown format": (
        lambda folder: (folder / "bad.csv").write_text("1,2"),
        "bad.csv",
        "unknown suffix '.csv'",
    ),
    "no data in a folder": (lambda folder: (folder / "bad").mkdir(), "bad", "is a directory without data"),
    "truncated": (lambda folder: (folder / "bad.npy").write_bytes(b"\x93NUMPY\x01"), "bad.npy", "bad.npy"),
    "text column": (
        lambda folder: pq.write_table(pa.table({"a": ["x", "y"]}), folder / "bad.parquet"),
        "bad.parquet",
        "'a'",
    ),
    "ragged": (
        lambda folder: pq.write_table(
            pa.table({"a": [[1.0, 2.0], [3.0], [4.0, 5.0], [6.0, 7.0]]}), folder / "bad.parquet"
        ),
        "bad.parquet",
        "row 1",
    ),
    "NaN": (write_nan, "bad.npy", "NaN at row 7, column 2"),
    "constant": (write_constant, "bad.npy", "constant"),
    "k above the rank": (write_low_rank, "bad.npy", "rank"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data(jobs, case):
    write, name, said = BAD_DATA[case]
    write(jobs.folder)
    line = jobs.refused(*with_option("--source", name))
    assert name in line
    assert said in line


BAD_REGRESSIONS = {
    "NaN": (write_nan, ("--target", "0"), "bad.npy: NaN at row 7, column 2"),
    "constant": (write_constant, ("--target", "0"), "bad.npy: columns 1, 2, 3 are constant"),
    "collinear": (write_low_rank, ("--target", "0"), "bad.npy: linear combinations of other columns"),
    "other rows": (write_nan, ("--target", "y.npy"), "y.npy: has 60 rows"),
    "other columns": (write_nan, ("--target", "0", "--validation-source", "rows.npy"), "7 feature columns for"),
    "too few rows": (
        lambda folder: np.save(folder / "bad.npy", np.eye(3)),
        ("--target", "y3.npy"),
        "bad.npy: 4 parameters cannot be told from 3 rows",
    ),
}


@pytest.mark.parametrize("case", BAD_REGRESSIONS)
def test_bad_data_of_a_regression(jobs, case):
    write, options, said = BAD_REGRESSIONS[case]
    write(jobs.folder)
    np.save(jobs.folder / "y.npy", np.arange(60.0))
    np.save(jobs.folder / "y3.npy", np.arange(3.0))
    line = jobs.refused(*("linear", "--source", "bad.npy", "--out", "new/out", "--tracking.enabled", "false", *options))
    assert said in line


def test_an_address_where_nobody_listens(jobs):
    begun = time.monotonic()
    line = jobs.refused(*with_option("--engine.address", "tcp://127.0.0.1:9"))
    assert line.startswith("EngineError: dask: no scheduler answers at tcp://127.0.0.1:9")
    assert time.monotonic() - begun < 12


def test_too_little_memory_says_what_would_fit(jobs):
    np.save(jobs.folder / "many.npy", np.zeros((10, 4000), np.float32))
    line = jobs.refused("covariance", "--source", "many.npy", "--engine.memory", "32MiB", "--tracking.enabled", "false")
    assert line.startswith("MemoryPlanError: ")
    assert "the budget is 32MiB" in line
    assert "It fits in memory=" in line


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


def test_debug_shows_the_traceback(jobs):
    done = jobs(*with_option("--source", "no.npy", "--debug"))
    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert "DataError" in done.stderr.splitlines()[-1]


def test_ctrl_c_ends_in_130_without_a_traceback(capsys):
    def interrupted(config):
        raise KeyboardInterrupt

    assert command("pca", PCAConfig, interrupted, ["--source", "rows.npy"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"
