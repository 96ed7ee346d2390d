"""What jobs compute, save, print and log, against plain NumPy in memory."""

import re

import mlflow
import numpy as np
import pytest

import lazypipe as lp
from jobs import covariance, pca
from jobs._recording import excluded
from jobs._work import browse

QUIET = ("--tracking.enabled", "false")


def eigen(rows, k):
    """The leading k eigenvalues, descending, and eigenvectors (k, D) of the covariance."""
    values, vectors = np.linalg.eigh(np.cov(rows.astype(float), rowvar=False))
    return values[::-1][:k], vectors.T[::-1][:k]


@pytest.mark.parametrize("kind", ["serial", "dask"])
@pytest.mark.parametrize("solver", ["auto", "gradient"])
def test_pca_finds_the_components(jobs, kind, solver):
    jobs.ok(
        *("pca", "--source", "rows.npy", "--n-components", "3", "--out", "out", "--tol", "1e-5"),
        *("--engine.kind", kind, "--solver", solver, *QUIET),
    )
    found = jobs.result("out")
    values, vectors = eigen(jobs.rows, 3)
    np.testing.assert_allclose(found["explained_variance"], values, rtol=1e-5)
    np.testing.assert_allclose(np.abs(found["components"] @ vectors.T), np.eye(3), atol=1e-4)
    np.testing.assert_allclose(found["mean"], jobs.rows.mean(axis=0), rtol=1e-5)
    total = np.cov(jobs.rows.astype(float), rowvar=False).trace()
    np.testing.assert_allclose(found["explained_variance_ratio"], values / total, rtol=1e-5)


def test_result_json_tells_everything(jobs):
    jobs.ok("pca", "--source", "rows.npy", "--n-components", "2", "--out", "out", "--solver", "gradient", *QUIET)
    found = jobs.result("out")
    assert found["config"]["n_components"] == 2
    assert found["config"]["engine"]["kind"] == "dask"
    assert found["source"]["shape"] == [60, 8]
    assert found["source"]["dtype"] == "float32"
    assert len(found["source"]["fingerprint"]) >= 8
    assert found["converged"] is True
    assert found["solver"] == "gradient"
    assert found["history"][-1]["residual"] <= found["config"]["tol"]
    assert len(found["history"][0]["explained_variance"]) >= 2
    assert 0 < found["peak_memory_bytes"] <= found["plan"]["peak_bytes"]
    assert found["mlflow"] is None


def test_outputs_and_states_may_be_file_addresses(place, capsys):
    there = f"file://{place}/there"
    rows = ("--source", f"file://{place}/rows.npy", "--engine.kind", "serial", *QUIET)
    names = {"out": "pca", "state": "pca-state", "scores": "scores.zarr"}
    given = [word for name, file in names.items() for word in (f"--{name}", f"{there}/{file}")]
    assert pca.main(["--n-components", "2", *given, *rows]) == 0
    names = {"out": "covariance", "state": "covariance-state"}
    given = [word for name, file in names.items() for word in (f"--{name}", f"{there}/{file}")]
    assert covariance.main([*given, *rows]) == 0
    tiles = ["--out", f"{there}/tiled", "--tiles", f"{there}/tiles.zarr"]
    assert covariance.main([*tiles, *rows]) == 0
    found = {path.name for path in (place / "there").iterdir()}
    assert found == {"pca", "pca-state", "scores.zarr", "covariance", "covariance-state", "tiled", "tiles.zarr"}
    assert {path.name for path in place.iterdir()} == {"rows.npy", "there"}
    assert capsys.readouterr().err == ""
    assert lp.PCA.load(f"{there}/pca").components_.shape == (2, 8)
    np.save(place / "there" / "exclude.npy", np.array([[0, 5]]))
    assert excluded(f"{there}/exclude.npy") == ((0, 5),)


def test_a_result_and_scores_go_behind_links(jobs):
    jobs.ok("pca", "--source", "rows.npy", "--n-components", "2", "--out", "three", "--scores", "three.zarr", *QUIET)
    (jobs.folder / "latest").symlink_to("three")
    (jobs.folder / "latest.zarr").symlink_to("three.zarr")
    again = ("--out", "latest", "--scores", "latest.zarr", "--overwrite")
    jobs.ok("pca", "--source", "rows.npy", "--n-components", "3", *again, *QUIET)
    assert (jobs.folder / "latest").is_symlink() and (jobs.folder / "latest.zarr").is_symlink()
    assert jobs.result("three")["components"].shape == (3, 8)


def test_covariance(jobs):
    jobs.ok("covariance", "--source", "rows.npy", "--ddof", "0", "--out", "out", *QUIET)
    found = jobs.result("out")
    expected = np.cov(jobs.rows.astype(float), rowvar=False, ddof=0)
    np.testing.assert_allclose(found["covariance"], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found["mean"][:3], [jobs.rows.mean(axis=0).min(), *found["mean"][1:3]], rtol=1)
    assert found["n_rows"] == 60


@pytest.mark.parametrize("kind", ["serial", "dask"])
def test_linear(jobs, kind):
    said = jobs.ok("linear", "--source", "rows.npy", "--target", "2", "--out", "out", "--engine.kind", kind, *QUIET)
    found = jobs.result("out")
    features, y = np.delete(jobs.rows, 2, axis=1).astype(float), jobs.rows[:, 2].astype(float)
    design = np.column_stack([np.ones(60), features])
    expected, residual, *_ = np.linalg.lstsq(design, y, rcond=None)
    np.testing.assert_allclose([found["intercept"], *found["coef"]], expected, rtol=1e-4)
    np.testing.assert_allclose(found["residual_variance"], residual[0] / 52, rtol=1e-5)
    np.testing.assert_allclose(found["r2"], 1 - residual[0] / (60 * y.var()), rtol=1e-4)
    spread = np.sqrt(found["residual_variance"] * np.linalg.inv(design.T @ design).diagonal())
    np.testing.assert_allclose(found["standard_errors"], spread[1:], rtol=1e-4)
    np.testing.assert_array_equal(found["columns"], [0, 1, 3, 4, 5, 6, 7])
    assert found["r2_validation"] is None
    assert (found["method"], found["passes"], found["n_rows"], found["ddof"]) == ("normal equations", 1, 60, 8)
    assert re.search(r"R²  .*adjusted", said)


def test_linear_with_a_target_and_validation_of_their_own(jobs):
    y = jobs.rows @ np.arange(8) + np.random.default_rng(1).normal(size=60)
    for name, part in (("train", slice(0, 40)), ("valid", slice(40, 60))):
        np.save(jobs.folder / f"{name}.npy", jobs.rows[part])
        np.save(jobs.folder / f"{name}_y.npy", y[part])
    said = jobs.ok(
        *("linear", "--source", "train.npy", "--target", "train_y.npy", "--ridge", "0.5", "--fit-intercept", "false"),
        *("--validation-source", "valid.npy", "--validation-target", "valid_y.npy", "--out", "out", "--method", "tsqr"),
    )
    found = jobs.result("out")
    x = jobs.rows[:40].astype(float)
    np.testing.assert_allclose(found["coef"], np.linalg.solve(x.T @ x + 0.5 * np.eye(8), x.T @ y[:40]), rtol=1e-9)
    left = y[40:] - jobs.rows[40:] @ found["coef"]
    np.testing.assert_allclose(found["r2_validation"], 1 - left @ left / (20 * y[40:].var()), rtol=1e-6)
    assert found["intercept_standard_error"] is None
    run_id = re.search(r"run (\w{32})", said)[1]
    mlflow.set_tracking_uri(f"sqlite:///{jobs.folder}/mlflow.db")
    run = mlflow.get_run(run_id)
    assert run.data.metrics["r2_validation"] == found["r2_validation"]
    assert run.data.params["target"] == "train_y.npy"
    assert "coefficients.png" in {item.path for item in mlflow.MlflowClient().list_artifacts(run_id)}


def test_linear_is_planned(jobs):
    said = jobs.ok("plan", "linear", "--source", "rows.npy", "--target", "-1", *QUIET)
    assert "normal equations" in said and "tsqr is one more pass" in said


def test_a_tracked_run_prints_where_everything_is(jobs):
    said = jobs.ok("pca", "--source", "rows.npy", "--n-components", "3", "--engine.kind", "serial")
    values, _ = eigen(jobs.rows, 3)
    assert f"{values[0]:.4g}"[:4] in said
    out = re.search(r"result +(results/pca-\S+)", said)[1]
    run_id = re.search(r"run (\w{32})", said)[1]
    assert "mlflow ui --backend-store-uri sqlite:///mlflow.db" in said
    assert jobs.result(out)["mlflow"]["run_id"] == run_id

    mlflow.set_tracking_uri(f"sqlite:///{jobs.folder}/mlflow.db")
    run = mlflow.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["n_components"] == "3"
    assert run.data.params["engine.kind"] == "serial"
    assert run.data.metrics["converged"] == 1
    assert run.data.metrics["peak_memory_bytes"] > 0
    assert mlflow.get_experiment(run.info.experiment_id).name == "pca"
    names = {item.path for item in mlflow.MlflowClient().list_artifacts(run_id)}
    assert {"scree.png", "result.json"} <= names
    assert "convergence.png" not in names, "an exact solver has no passes to show"
    assert (jobs.folder / out / "scree.png").read_bytes().startswith(b"\x89PNG")
    scores = mlflow.pyfunc.load_model(f"runs:/{run_id}/model").predict(jobs.rows)
    found = jobs.result(out)
    np.testing.assert_allclose(scores, (jobs.rows - found["mean"]) @ found["components"].T, rtol=1e-4, atol=1e-4)


def test_generate_convert_and_back(jobs):
    jobs.ok(
        *("generate", "--target", "data/made.npy", "--n-rows", "200", "--n-columns", "40"),
        *("--spectrum", "9,4,1", "--mean", "2"),
    )
    said = jobs.ok("convert", "--source", "data/made.npy", "--target", "data/made.arrow")
    assert "200 x 40 float32" in said
    jobs.ok("pca", "--source", "data/made.arrow", "--n-components", "3", "--out", "out", *QUIET)
    np.testing.assert_allclose(jobs.result("out")["explained_variance"], [9, 4, 1], rtol=1e-4)
    said = jobs.ok("convert", "--source", "data/made.arrow", "--target", "data/made.zarr", "--panel-columns", "16")
    assert "200 x 40 float32" in said
    assert len(list((jobs.folder / "data" / "made.zarr" / "c" / "0").iterdir())) == 3


def test_plan_prints_the_numbers_and_does_nothing(jobs):
    before = sorted(jobs.folder.rglob("*"))
    said = jobs.ok("plan", "pca", "--source", "rows.npy", "--n-components", "2", "--engine.memory", "64MiB", *QUIET)
    assert "60 rows x 8 columns" in said
    assert "budget 64MiB" in said
    assert "at the peak" in said
    assert sorted(jobs.folder.rglob("*")) == before


def test_defaults_then_yaml_then_engine_file_then_options(jobs):
    (jobs.folder / "pca.yaml").write_text(
        "source: rows.npy\nn_components: 2\nseed: 7\ntol: 1e-4\n"
        "engine: {kind: spark, memory: 32MiB}\ntracking: {enabled: false}\n"
    )
    (jobs.folder / "engine.yaml").write_text("kind: serial\nmemory: 64MiB\n")
    jobs.ok(
        *("pca", "--config", "pca.yaml", "--engine", "engine.yaml", "--n_components", "3"),
        *("--engine.memory=48MiB", "--max-passes", "none", "--out", "out"),
    )
    config = jobs.result("out")["config"]
    assert (config["n_components"], config["seed"], config["tol"], config["step"]) == (3, 7, 1e-4, "adaptive")
    assert (config["engine"]["kind"], config["engine"]["memory"]) == ("serial", "48MiB")
    assert config["max_passes"] is None


def test_overwrite_replaces_a_result_whole(jobs):
    pca = ("pca", "--source", "rows.npy", "--out", "out", *QUIET, "--n-components")
    jobs.ok(*pca, "3")
    (jobs.folder / "out" / "left-over").touch()
    assert jobs.refused(*pca, "2").startswith("DataError: out: exists. Pass --overwrite")
    jobs.ok(*pca, "2", "--overwrite")
    assert jobs.result("out")["components"].shape == (2, 8)
    assert not (jobs.folder / "out" / "left-over").exists()
    assert [path.name for path in jobs.folder.glob(".*")] == []


def test_a_fit_that_does_not_converge_warns_and_says_by_how_much(jobs):
    rows = np.random.default_rng(0).normal(size=(500, 300)).astype(np.float32)  # a flat spectrum: hard
    np.save(jobs.folder / "flat.npy", rows)
    done = jobs(
        *("pca", "--source", "flat.npy", "--n-components", "2", "--out", "out", "--solver", "gradient"),
        *("--max-passes", "4", *QUIET),
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"Warning: not converged: the largest residual is \S+ after 4 passes.*\n", done.stderr)
    assert jobs.result("out")["converged"] is False
    assert "NOT converged" in done.stdout


def test_a_job_can_be_run_by_its_file(jobs):
    jobs.ok("--source", "rows.npy", "--n-components", "2", "--out", "out", *QUIET, file="jobs/pca.py")
    assert jobs.result("out")["components"].shape == (2, 8)


def test_how_to_open_a_store_is_a_command_that_can_be_pasted():
    assert browse("sqlite:///mlflow.db") == "mlflow ui --backend-store-uri sqlite:///mlflow.db"
    assert browse("sqlite:////my runs/mlflow.db") == "mlflow ui --backend-store-uri 'sqlite:////my runs/mlflow.db'"
    assert browse("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
