"""Runs in a real MLflow store: what is asked, on which data, how it went, and the model that comes back."""

import json
import os
import time

import mlflow
import numpy as np
import pandas as pd
import pytest

import lazypipe as lp
from lazypipe import figures, tracking
from lazypipe.progress import PassDone
from lazypipe.tracking import Child


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(40, 6)) * [6, 5, 4, 3, 2, 1] + 10).astype(np.float32)
    np.save(folder / "rows.npy", rows)
    return folder


@pytest.fixture(scope="module")
def logged(store):
    """A fit that is logged whole: (run, matrix, pca)."""
    uri = f"sqlite:///{store}/mlflow.db"
    matrix = lp.open_matrix(store / "rows.npy")
    parameters = {"n_components": 3, "engine": {"kind": "serial", "memory": None}, "long": "x" * 900}
    history = [PassDone(i, 10.0**-i, (30.0 + i, 20.0, 10.0)) for i in (1, 2, 3)]
    with lp.open_engine("serial") as engine, tracking.tracked_run(uri, "pca", parameters, matrix) as run:
        pca = lp.PCA(n_components=3).fit(matrix, engine=engine)
        for event in history:
            run(event)
        run.log_metrics({"seconds": 1.5, "converged": 1.0})
        for name, figure in (("scree", figures.scree(pca)), ("convergence", figures.convergence(history, 1e-6))):
            figure.savefig(store / f"{name}.png")
            run.log_file(store / f"{name}.png")
        run.log_projection(pca.mean_, pca.components_)
    mlflow.set_tracking_uri(uri)
    return mlflow.get_run(run.run_id), matrix, pca


def test_parameters_are_flat_and_whole(logged):
    run, _, _ = logged
    assert run.data.params["n_components"] == "3"
    assert run.data.params["engine.kind"] == "serial"
    assert run.data.params["engine.memory"] == "None"
    assert run.data.params["long"] == "x" * tracking.PARAMETER_LENGTH
    assert run.info.status == "FINISHED"
    assert mlflow.get_experiment(run.info.experiment_id).name == "pca"


def test_dataset_tells_source_shape_and_fingerprint(logged):
    run, matrix, _ = logged
    (found,) = run.inputs.dataset_inputs
    assert found.dataset.digest == matrix.fingerprint()
    assert found.dataset.name == "rows.npy"
    assert json.loads(found.dataset.source)["uri"] == matrix.uri
    assert json.loads(found.dataset.profile) == {"n_rows": 40, "n_columns": 6, "dtype": "float32"}
    assert "float32" in found.dataset.schema


def test_metrics_have_a_step_a_pass(logged):
    run, _, _ = logged
    client = mlflow.MlflowClient()
    residuals = client.get_metric_history(run.info.run_id, "residual")
    assert [(m.step, m.value) for m in residuals] == [(1, 0.1), (2, 0.01), (3, 0.001)]
    first = client.get_metric_history(run.info.run_id, "explained_variance_1")
    assert [m.value for m in first] == [31.0, 32.0, 33.0]
    assert run.data.metrics["seconds"] == 1.5


def test_figures_are_artifacts(logged):
    run, _, _ = logged
    names = {item.path for item in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert {"scree.png", "convergence.png"} <= names


def test_artifacts_lie_beside_the_database(logged, store):
    run, _, _ = logged
    assert (store / "mlruns" / "pca" / run.info.run_id / "artifacts" / "scree.png").is_file()


def test_model_comes_back_and_transforms_new_rows(logged, recwarn):
    run, _, pca = logged
    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    rows = np.random.default_rng(1).normal(10, 3, size=(7, 6))
    np.testing.assert_allclose(model.predict(rows), pca.transform(rows), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.predict(pd.DataFrame(rows)), pca.transform(rows), rtol=1e-5, atol=1e-5)
    with pytest.raises(Exception, match=r"expected \(n, 6\)"):
        model.predict(rows[:, :5])
    assert not [w for w in recwarn if "type hint" in str(w.message).lower()]


def test_a_million_columns_log_in_seconds(store):
    uri = f"sqlite:///{store}/mlflow.db"
    matrix = lp.open_matrix(store / "rows.npy")
    begun = time.monotonic()
    with tracking.tracked_run(uri, "wide", {}, matrix) as run:
        run.log_projection(np.zeros(10**6, np.float32), np.ones((2, 10**6), np.float32))
    mlflow.set_tracking_uri(uri)
    model = mlflow.pyfunc.load_model(f"runs:/{run.run_id}/model")
    assert model.predict(np.ones((1, 10**6), np.float32)).tolist() == [[1e6, 1e6]]
    assert time.monotonic() - begun < 20


def test_a_failed_run_says_why(store, monkeypatch):
    uri = f"sqlite:///{store}/mlflow.db"
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123")  # of an outer run: must not become the parent
    matrix = lp.open_matrix(store / "rows.npy")
    with pytest.raises(lp.DataError), tracking.tracked_run(uri, "pca", {}, matrix) as run:
        raise lp.DataError("rows.npy: NaN at row 3, column 1.")
    mlflow.set_tracking_uri(uri)
    found = mlflow.get_run(run.run_id)
    assert found.info.status == "FAILED"
    assert found.data.tags["error"] == "DataError: rows.npy: NaN at row 3, column 1."


def test_a_store_that_goes_away_does_not_stop_the_fit(store, monkeypatch):
    uri = f"sqlite:///{store}/mlflow.db"
    with tracking.tracked_run(uri, "pca", {}, lp.open_matrix(store / "rows.npy")) as run:
        log_batch = run.client.log_batch

        def away(*args, **kwargs):
            raise OSError("no route to host")

        monkeypatch.setattr(run.client, "log_batch", away)
        run(PassDone(1, 0.5))
        monkeypatch.setattr(run.client, "log_batch", log_batch)
        run(PassDone(2, 0.25))
    mlflow.set_tracking_uri(uri)
    residuals = mlflow.MlflowClient().get_metric_history(run.run_id, "residual")
    assert [(m.step, m.value) for m in residuals] == [(1, 0.5), (2, 0.25)]


def child(name, n_points=3, **options):
    points = [("validation_accuracy", 0.5 + i / 1e5, i) for i in range(n_points)]
    return Child(name, {"size": 1000, "model": "logistic"}, points, {"cells.csv": "C,seed\n1,0\n"}, **options)


def below(run):
    """The children of a run, as the UI lists them."""
    return run.client.search_runs([run.experiment_id], f"tags.`mlflow.parentRunId` = '{run.run_id}'")


def test_children_are_runs_below_the_run(store):
    uri = f"sqlite:///{store}/mlflow.db"
    with tracking.tracked_run(uri, "sweep", {}, lp.open_matrix(store / "rows.npy")) as run:
        run.log_note("More rows: **they help**.")
        run.log_metrics({"seconds": 2.0}, [("validation_accuracy", 0.7, 50), ("validation_accuracy", 0.8, 1000)])
        run.log_child(child("size 50", note="Steps are strengths.", seconds=2.5))
        run.log_child(child("size 200", failed="all rows are of class 0"))
        run.log_child(child("size 1,000", n_points=2500))
    mlflow.set_tracking_uri(uri)
    parent = mlflow.get_run(run.run_id)
    assert parent.data.tags["mlflow.note.content"] == "More rows: **they help**."
    assert parent.data.metrics == {"seconds": 2.0, "validation_accuracy": 0.8}
    first, failed, last = below(run)
    assert [one.info.run_name for one in (first, failed, last)] == ["size 50", "size 200", "size 1,000"]
    assert first.data.params == {"size": "1000", "model": "logistic"}
    assert first.data.tags["mlflow.note.content"] == "Steps are strengths."
    assert first.info.end_time - first.info.start_time == 2500
    assert mlflow.artifacts.load_text(f"runs:/{first.info.run_id}/cells.csv") == "C,seed\n1,0\n"
    assert [one.info.status for one in (parent, first, failed, last)] == ["FINISHED", "FINISHED", "FAILED", "FINISHED"]
    assert failed.data.tags["error"] == "all rows are of class 0"
    history = mlflow.MlflowClient().get_metric_history(last.info.run_id, "validation_accuracy")
    assert [(point.step, point.value) for point in history] == [(i, 0.5 + i / 1e5) for i in range(2500)]


def test_a_failed_run_marks_its_children(store):
    uri = f"sqlite:///{store}/mlflow.db"
    matrix = lp.open_matrix(store / "rows.npy")
    with pytest.raises(KeyboardInterrupt), tracking.tracked_run(uri, "sweep", {}, matrix) as run:
        run.log_child(child("size 50"))
        raise KeyboardInterrupt
    (found,) = below(run)
    assert found.info.status == "FAILED" and found.data.tags["error"] == "KeyboardInterrupt"


def test_ten_thousand_points_in_twenty_children_log_in_seconds(store):
    uri = f"sqlite:///{store}/mlflow.db"
    begun = time.monotonic()
    with tracking.tracked_run(uri, "sweep", {}, lp.open_matrix(store / "rows.npy")) as run:
        for i in range(20):
            run.log_child(child(f"size {i}", n_points=500))
    assert time.monotonic() - begun < 20
    assert len(below(run)) == 20


@pytest.mark.parametrize(
    ("uri", "error", "said"),
    [
        ("http://127.0.0.1:9", lp.EngineError, "no MLflow store answers"),
        ("sqlite:////nonexistent/folder/mlflow.db", lp.ConfigError, "no such folder"),
        ("mlflow.db", lp.ConfigError, "is no tracking store"),
        ("sqlite:////dev/null", lp.EngineError, "cannot use this store"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_at_once(store, uri, error, said):
    begun = time.monotonic()
    matrix = lp.open_matrix(store / "rows.npy")
    with pytest.raises(error, match=said) as caught, tracking.tracked_run(uri, "pca", {}, matrix):
        pytest.fail("the work began")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begun < 10


def test_an_attempt_after_one_that_failed_replaces_its_children_and_models(store):
    uri, matrix = f"sqlite:///{store}/mlflow.db", lp.open_matrix(store / "rows.npy")
    arguments = (uri, "again", {"size": 3, "engine": {"kind": "dask"}}, matrix)
    with pytest.raises(lp.EngineError), tracking.tracked_run(*arguments, key="0123", name="fit of rows") as first:
        first.log_child(child("size 50"))
        first.log_projection(np.zeros(6), np.eye(6)[:2])
        first(PassDone(1, 0.5))
        raise lp.EngineError("the cluster is gone")
    changed = (uri, "again", {"size": 3, "engine": {"kind": "serial"}}, matrix)
    with tracking.tracked_run(*changed, key="0123", tags={"prefect.flow_run_id": "f"}) as second:
        assert second.attempt == 2
        second(PassDone(1, 0.5))
        second(PassDone(2, 0.25))
        second.log_child(child("size 50"))
        second.log_projection(np.zeros(6), np.eye(6)[:2])
    assert second.run_id == first.run_id
    (found,) = below(second)
    assert found.info.status == "FINISHED" and found.info.run_id == second.children[0]
    of_run = f"source_run_id = '{second.run_id}'"
    assert len(second.client.search_logged_models([second.experiment_id], of_run)) == 1
    run = second.client.get_run(second.run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "fit of rows" and "error" not in run.data.tags
    assert run.data.params["engine.kind"] == "dask" and run.data.tags["lazypipe.now.engine.kind"] == "serial"
    assert run.data.tags["prefect.flow_run_id"] == "f" and run.data.tags["lazypipe.attempts"] == "2"
    history = second.client.get_metric_history(second.run_id, "residual")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.25)]


def test_without_a_key_every_run_is_new(store):
    uri, matrix = f"sqlite:///{store}/mlflow.db", lp.open_matrix(store / "rows.npy")
    with pytest.raises(lp.EngineError), tracking.tracked_run(uri, "new", {}, matrix) as first:
        raise lp.EngineError("the cluster is gone")
    with tracking.tracked_run(uri, "new", {}, matrix) as second:
        pass
    assert first.run_id != second.run_id


def test_the_environment_is_as_before_a_model_was_logged(store, monkeypatch):
    uri = f"sqlite:///{store}/mlflow.db"
    for before in ("http://elsewhere:5000", None):
        if before is None:
            monkeypatch.delenv("MLFLOW_TRACKING_URI")
        else:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", before)
        with tracking.tracked_run(uri, "pca", {}, lp.open_matrix(store / "rows.npy")) as run:
            run.log_projection(np.zeros(6), np.eye(6)[:2])
        assert os.environ.get("MLFLOW_TRACKING_URI") == before
