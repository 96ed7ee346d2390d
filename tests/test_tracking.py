"""Runs in a real MLflow store: what is asked, on which data, how it went, and the model that comes back."""

import http.client
import json
import os
import time

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
import sqlalchemy
import urllib3
from mlflow.protos.databricks_pb2 import (
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    REQUEST_LIMIT_EXCEEDED,
    TEMPORARILY_UNAVAILABLE,
)

import lazypipe as lp
from lazypipe import figures, tracking
from lazypipe.progress import PassDone
from lazypipe.tracking import Child, Model, Record


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
        record = Record(model=Model("projection", {"mean": pca.mean_, "components": pca.components_}))
        record.add_metrics({"seconds": 1.5, "converged": 1.0})
        for name, figure in (("scree", figures.scree(pca)), ("convergence", figures.convergence(history, 1e-6))):
            figure.savefig(store / f"{name}.png")
            record.files.append(f"{name}.png")
        assert run.finish(record, store) is None
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
        tracking.log_projection(uri, run.run_id, np.zeros(10**6, np.float32), np.ones((2, 10**6), np.float32))
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
        record = Record(tags=tracking.note("More rows: **they help**."))
        record.add_metrics({"seconds": 2.0}, [("validation_accuracy", 0.7, 50), ("validation_accuracy", 0.8, 1000)])
        record.children.append(child("size 50", note="Steps are strengths.", seconds=2.5))
        record.children.append(child("size 200", failed="all rows are of class 0"))
        record.children.append(child("size 1,000", n_points=2500))
        assert run.finish(record, store) is None
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


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (OSError, "FAILED")])
def test_a_run_that_ends_early_marks_its_children(error, status, store):
    uri = f"sqlite:///{store}/mlflow.db"
    matrix = lp.open_matrix(store / "rows.npy")
    with pytest.raises(error), tracking.tracked_run(uri, "sweep", {}, matrix) as run:
        run.log_child(child("size 50"))
        raise error
    (found,) = below(run)
    assert found.info.status == status and found.data.tags["error"] == error.__name__


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
        tracking.log_projection(uri, first.run_id, np.zeros(6), np.eye(6)[:2])
        first(PassDone(1, 0.5))
        raise lp.EngineError("the cluster is gone")
    changed = (uri, "again", {"size": 3, "engine": {"kind": "serial"}}, matrix)
    with tracking.tracked_run(*changed, key="0123", tags={"prefect.flow_run_id": "f"}) as second:
        assert second.attempt == 2
        second(PassDone(1, 0.5))
        second(PassDone(2, 0.25))
        second.log_child(child("size 50"))
        tracking.log_projection(uri, second.run_id, np.zeros(6), np.eye(6)[:2])
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
            tracking.log_projection(uri, run.run_id, np.zeros(6), np.eye(6)[:2])
        assert os.environ.get("MLFLOW_TRACKING_URI") == before


def mlflow_error(code):
    return mlflow.exceptions.MlflowException("no", error_code=code)


def http_error(status):
    answer = requests.Response()
    answer.status_code = status
    return requests.exceptions.HTTPError("no", response=answer)


AWAY = {
    "no route": OSError("no route to host"),
    "refused": ConnectionRefusedError(111, "Connection refused"),
    "timeout": TimeoutError("timed out"),
    "requests": requests.exceptions.ReadTimeout("read timed out"),
    "urllib3": urllib3.exceptions.NewConnectionError(None, "no"),
    "half an answer": http.client.IncompleteRead(b"half"),
    "database": sqlalchemy.exc.OperationalError("select", None, Exception("server closed the connection")),
    "database locked": mlflow_error(TEMPORARILY_UNAVAILABLE),
    "500": mlflow_error(INTERNAL_ERROR),
    "429": mlflow_error(REQUEST_LIMIT_EXCEEDED),
    "503 of a proxy": http_error(503),
    "not there at the start": lp.EngineError("http://127.0.0.1:9: no MLflow store answers"),
}
THERE = {
    "a bug": ZeroDivisionError(),
    "a bad value": ValueError("nan"),
    "400": mlflow_error(INVALID_PARAMETER_VALUE),
    "403": mlflow_error(PERMISSION_DENIED),
    "403 of a proxy": http_error(403),
    "a file that is gone": FileNotFoundError(2, "No such file or directory", "out/scree.png"),
    "a bad statement": sqlalchemy.exc.ProgrammingError("select", None, Exception("no such column")),
    "a bad address": lp.ConfigError("mlflow.db: is no tracking store"),
}


@pytest.mark.parametrize("case", AWAY)
def test_a_store_that_is_away_or_ill_may_take_it_later(case):
    assert tracking.is_away(AWAY[case])


@pytest.mark.parametrize("case", THERE)
def test_what_has_nothing_to_do_with_a_connection_is_not_tried_again(case):
    assert not tracking.is_away(THERE[case])


def test_a_page_has_an_address_that_a_browser_opens():
    page = tracking.page_of("https://me:open-sesame@host:5000/mlflow/", "7", "0123")
    assert page == "https://host:5000/mlflow/#/experiments/7/runs/0123"
    assert tracking.page_of("sqlite:///mlflow.db", "7", "0123") is None
