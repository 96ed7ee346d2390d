"""A result that was not tracked, or not in full, is sent to MLflow afterwards, and nothing of it twice."""

import json
import re
from http.server import BaseHTTPRequestHandler

import mlflow
import numpy as np
import pytest
from web_servers import answering

import lazypipe as lp
from jobs import _late, covariance, log, mlp, pca, rbm
from lazypipe import tracking
from lazypipe.stores import path_of
from lazypipe.tracking import Child, Model, Record

UNTRACKED = ("--engine.kind", "serial", "--tracking.enabled", "false", "--out", "out")


@pytest.fixture(autouse=True)
def place(place, stored, monkeypatch):
    """The same with a store that jobs find."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stored)
    return place


def found(place, job):
    """The runs of a job, and MLflow's client."""
    uri = f"sqlite:///{place}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient(uri)
    return client, client.search_runs([client.get_experiment_by_name(job).experiment_id])


def test_a_result_that_was_not_tracked_is_logged_whole_and_once(place, capsys):
    fit = ("--source", "rows.npy", "--n-components", "2", "--solver", "gradient", *UNTRACKED)
    assert pca.main([*fit]) == 0
    assert log.main(["--result", "out"]) == 0
    run_id = re.search(r"run (\w{32})", capsys.readouterr().out)[1]
    client, (run,) = found(place, "pca")
    figures = json.loads((place / "out" / "result.json").read_text())
    assert run.info.run_id == run_id == figures["mlflow"]["run_id"]
    assert run.info.status == "FINISHED" and run.info.run_name == "pca of rows.npy"
    assert run.data.params["n_components"] == "2" and run.data.params["plan.solver"] == "gradient"
    assert run.data.tags["lazypipe.key"] == figures["trace"]["key"]
    assert figures["metrics"].items() <= run.data.metrics.items()
    assert len(client.get_metric_history(run_id, "explained_variance_2")) == len(figures["history"])
    assert run.inputs.dataset_inputs[0].dataset.digest == figures["source"]["fingerprint"]
    assert {"result.json", "scree.png"} <= {item.path for item in client.list_artifacts(run_id)}
    rows = np.load("rows.npy")
    scores = mlflow.pyfunc.load_model(f"runs:/{run_id}/model").predict(rows)
    assert scores.shape == (60, 2)

    assert log.main(["--result", "out"]) == 0
    assert "is in MLflow already: nothing to do" in capsys.readouterr().out
    assert len(found(place, "pca")[1]) == 1


def test_a_tracked_result_goes_to_another_store_as_a_run_of_its_own(place, capsys):
    store = ("--tracking.uri", f"sqlite:///{place}/first.db")
    assert covariance.main(["--source", "rows.npy", "--engine.kind", "serial", "--out", "out", *store]) == 0
    assert log.main(["--result", "out", *store]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert log.main(["--result", "out", "--tracking.uri", f"sqlite:///{place}/mlflow.db"]) == 0
    assert len(found(place, "covariance")[1]) == 1


def test_a_run_that_was_killed_before_it_ended_gets_what_it_lacks_and_nothing_twice(place):
    fit = ("--source", "rows.npy", "--n-components", "2", "--solver", "gradient", "--engine.kind", "serial")
    assert pca.main([*fit, "--out", "out"]) == 0
    client, (run,) = found(place, "pca")
    run_id = run.info.run_id
    client.update_run(run_id, status="RUNNING")
    client.set_tag(run_id, "lazypipe.process", "elsewhere:1:1")
    before = {name: len(client.get_metric_history(run_id, name)) for name in run.data.metrics}
    assert log.main(["--result", "out"]) == 0
    client, (run,) = found(place, "pca")
    assert run.info.run_id == run_id and run.info.status == "FINISHED"
    assert {name: len(client.get_metric_history(run_id, name)) for name in run.data.metrics} == before


def test_a_network_that_was_not_tracked_brings_its_epochs_and_its_layers(place):
    np.save("labels.npy", (np.load("rows.npy")[:, 0] > 0).astype(int))
    network = ("--labels", "labels.npy", "--hold-out", "20", "--hidden", "4", "--epochs", "3")
    network += ("--batch-size", "10", "--threads", "1")
    assert mlp.main(["--source", "rows.npy", *network, *UNTRACKED]) == 0
    assert log.main(["--result", "out"]) == 0
    client, (run,) = found(place, "mlp")
    assert len(client.get_metric_history(run.info.run_id, "validation_accuracy")) == 3
    classes = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model").predict(np.load("rows.npy"))
    assert set(classes) <= {0, 1}


def test_a_machine_that_was_not_tracked_brings_its_units(place):
    machine = ("--source", "rows.npy", "--visible", "gaussian", "--divide-by", "2", "--n-hidden", "3", "--epochs", "1")
    machine += ("--batch-size", "20", "--sample-steps", "0", "--threads", "1")
    assert rbm.main([*machine, *UNTRACKED]) == 0
    assert log.main(["--result", "out"]) == 0
    _, (run,) = found(place, "rbm")
    units = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model").predict(np.load("rows.npy"))
    np.testing.assert_allclose(units, lp.RBM.load("out/model.safetensors").transform("rows.npy"), atol=1e-5)


def test_a_model_fills_gaps_as_the_fit_did(place):
    """At once, and sent later."""
    rows = np.load("rows.npy")
    rows[::7, 2] = np.nan
    np.save("gaps.npy", rows)
    fit = ("--source", "gaps.npy", "--n-components", "2", "--nan", "mean", "--scale", "unit", "--engine.kind", "serial")
    assert pca.main([*fit, "--out", "first"]) == 0
    assert pca.main([*fit, "--tracking.enabled", "false", "--out", "second"]) == 0
    assert log.main(["--result", "second"]) == 0
    wanted = lp.PCA.load("first").transform(rows)
    runs = found(place, "pca")[1]
    assert len(runs) == 2 and np.isfinite(wanted).all()
    for run in runs:
        scores = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model").predict(rows)
        np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-5)


def test_a_result_in_a_store_of_objects_brings_its_model(place):
    out = "memory://log/pca"
    fit = ("--source", "rows.npy", "--n-components", "2", "--scale", "unit", *UNTRACKED[:-1], out)
    assert pca.main([*fit]) == 0
    assert log.main(["--result", out]) == 0
    _, (run,) = found(place, "pca")
    scores = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model").predict(np.load("rows.npy"))
    wanted = lp.PCA.load(out).transform("rows.npy")
    np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-4)

    np.save("labels.npy", (np.load("rows.npy")[:, 0] > 0).astype(int))
    out = "memory://log/mlp"
    network = ("--labels", "labels.npy", "--hold-out", "20", "--hidden", "4", "--epochs", "1", "--threads", "1")
    network += ("--batch-size", "10")
    assert mlp.main(["--source", "rows.npy", *network, *UNTRACKED[:-1], out]) == 0
    assert log.main(["--result", out]) == 0
    _, (run,) = found(place, "mlp")
    classes = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model").predict(np.load("rows.npy"))
    np.testing.assert_array_equal(classes, lp.MLP.load(f"{out}/model.safetensors").predict("rows.npy"))


def test_what_is_sent_later_begins_as_what_is_sent_at_once(place):
    """Name, parameters, tags and dataset are the same, but for what tells of the attempt."""
    fit = ("--source", "rows.npy", "--n-components", "2", "--engine.kind", "serial")
    assert pca.main([*fit, "--out", "first"]) == 0
    assert log.main(["--result", "first", "--tracking.experiment", "again"]) == 0  # it is there
    figures = json.loads((place / "first" / "result.json").read_text())
    (place / "first" / "result.json").write_text(json.dumps(figures | {"mlflow": None}))
    assert log.main(["--result", "first", "--tracking.experiment", "again"]) == 0
    (at_once,), (later,) = found(place, "pca")[1], found(place, "again")[1]
    assert later.info.run_name == at_once.info.run_name == "pca of rows.npy"
    assert later.data.params == at_once.data.params
    own = ("lazypipe.process", "mlflow.log-model.history")
    first, second = ({k: v for k, v in run.data.tags.items() if k not in own} for run in (at_once, later))
    assert first == second and "lazypipe.key" in second
    assert later.inputs.dataset_inputs[0].dataset.digest == at_once.inputs.dataset_inputs[0].dataset.digest


RECORD = {
    "job": "pca", "mlflow": None, "config": {}, "plan": {}, "history": [],
    "source": {"uri": "rows.npy", "shape": [60, 8], "dtype": "float32", "fingerprint": "0"},
}  # fmt: skip
NO_JSON = "out/result.json: is damaged (it is no JSON). Run the job again."
NO_RECORDS = {
    "no folder": (None, "out: is no result of a job (it holds no result.json). Pass its folder as --result."),
    "half of it": ("{", NO_JSON),
    "no text": (b"\xff\xfe", NO_JSON),
    "no end of brackets": ("[" * 100_000, NO_JSON),
    "something else": ('{"run": 3}', "out/result.json: is damaged (it holds no job). Run the job again."),
    "a list": ("[]", "out/result.json: is damaged (record: input should be a valid dictionary). Run"),
    "a run without an id": (RECORD | {"mlflow": {}}, "out/result.json: is damaged (it holds no mlflow.run_id)."),
    "a run that is a number": (RECORD | {"mlflow": 3}, "out/result.json: is damaged (mlflow: input should be a valid"),
    "passes that are none": (RECORD | {"history": [1]}, "out/result.json: is damaged (history.0: input should be a"),
    "no rows": (RECORD | {"source": "rows.npy"}, "out/result.json: is damaged (source: input should be a valid"),
}


@pytest.mark.parametrize("case", NO_RECORDS)
def test_what_is_no_record_of_a_result_is_told(place, refused, case):
    held, said = NO_RECORDS[case]
    if held is not None:
        (place / "out").mkdir()
        content = json.dumps(held) if isinstance(held, dict) else held
        (place / "out" / "result.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert refused(log.main, {"--result": "out"}).startswith(f"DataError: {said}")


def test_a_folder_in_place_of_a_record_is_told(place, refused):
    (place / "out" / "result.json").mkdir(parents=True)
    assert "out/result.json: cannot be read: Is a directory." in refused(log.main, {"--result": "out"})


def test_a_store_that_is_not_well_gets_advice_that_helps(place, refused):
    class Unwell(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(503)

    (place / "out").mkdir()
    (place / "out" / "result.json").write_text(json.dumps(RECORD))
    with answering(Unwell) as address:
        line = refused(log.main, {"--result": "out", "--tracking.uri": address})
    assert line.endswith("the MLflow server answers 503 Service Unavailable. See its log, or pass another "
                         "--tracking.uri.\n")  # fmt: skip


def test_a_damaged_record_is_told(place, capsys):
    assert covariance.main(["--source", "rows.npy", *UNTRACKED]) == 0
    (place / "out" / "not_logged.json").write_text('{"model": null}')
    assert log.main(["--result", "out"]) == 2
    assert "out/not_logged.json: is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00v\x00{'descr':"])
def test_a_damaged_array_is_told(place, capsys, refused, content):
    assert pca.main(["--source", "rows.npy", "--n-components", "2", *UNTRACKED]) == 0
    capsys.readouterr()
    (place / "out" / "components.npy").write_bytes(content)
    line = refused(log.main, {"--result": "out"})
    assert re.fullmatch(r"DataError: out/components.npy: is not a readable .npy file \(.+\). Run the job .*\n", line)


def test_damaged_arrays_of_what_waits_are_told(place, run):
    _late.keep(place, run, some_record(place))
    (place / "not_logged.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(lp.DataError, match="not_logged.json: is damaged .*Delete it"):
        _late.kept(place)


def test_to_log_without_tracking_is_refused(capsys):
    assert log.main(["--result", "out", "--tracking.enabled", "false"]) == 2
    assert capsys.readouterr().err.startswith("ConfigError: tracking.enabled: is false")


@pytest.fixture
def run(place):
    """A run of a matrix, with what it is to hold."""
    store = f"sqlite:///{place}/mlflow.db"
    with tracking.tracked_run(store, "pca", {}, lp.open_matrix("rows.npy")) as run:
        yield run


def some_record(place):
    (place / "result.json").write_text("{}")
    (place / "scree.png").write_text("a picture")
    children = [Child(f"size {n}", {"size": n}, [("accuracy", 0.5, 0)], {"cells.csv": "C\n1\n"}) for n in (10, 20, 30)]
    record = Record(tracking.note("**yes**"), files=["result.json", "scree.png"], children=children)
    record.model = Model("projection", {"mean": np.zeros(3), "components": np.eye(3)[:2], "scale": None})
    record.add_metrics({"seconds": 1.5}, [("residual", 0.5, 1), ("residual", 0.25, 2)])
    return record


VERBS = ("log_batch", "log_artifact", "create_run", "log_text", "set_terminated")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("times", [1, 2])
def test_a_store_that_goes_away_at_any_call_has_everything_once_in_the_end(place, run, monkeypatch, verb, times):
    real, left = getattr(run.client, verb), [times]

    def away(*args, **kwargs):
        """Does it, and is away before it could say so; the second time at once."""
        left[0] -= 1
        if left[0] == 0:
            real(*args, **kwargs)
        if left[0] >= 0:
            raise OSError("no route to host")
        return real(*args, **kwargs)

    monkeypatch.setattr(run.client, verb, away)
    record = some_record(place)
    while (error := run.finish(record, place)) is not None:
        assert "no route" in str(error)
        _late.keep(place, run, record)
        record, where = _late.kept(place)  # as if another process went on
        assert where["run_id"] == run.run_id
        run._waiting = record.metrics
    client, runs = found(place, "pca")
    (parent,) = [one for one in runs if "mlflow.parentRunId" not in one.data.tags]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mlflow.note.content"] == "**yes**"
    assert [m.step for m in client.get_metric_history(run.run_id, "residual")] == [1, 2]
    assert len(client.get_metric_history(run.run_id, "seconds")) == 1
    children = [one for one in runs if "mlflow.parentRunId" in one.data.tags]
    assert sorted(one.info.run_name for one in children) == ["size 10", "size 20", "size 30"]
    assert {one.info.status for one in children} == {"FINISHED"}
    models = client.search_logged_models([parent.info.experiment_id], f"source_run_id = '{run.run_id}'")
    assert len(models) == 1


def test_a_record_comes_back_as_it_was_kept(place, run):
    record = some_record(place)
    record.model = Model("network", {
        "layers": [(np.ones((4, 3), np.float32), np.zeros(4, np.float32)), (np.ones((2, 4)), np.zeros(2))],
        "activation": "relu", "output": "softmax", "classes": np.array(["a", "b"], object), "divide_by": 255.0,
    })  # fmt: skip
    _late.keep(place, run, record)
    again, where = _late.kept(place)
    assert where == run.describe()
    assert (again.tags, again.metrics) == (record.tags, record.metrics)
    assert (again.files, again.children) == (record.files, record.children)
    assert again.model.kind == "network" and again.model.arguments["divide_by"] == 255.0
    for (weight, bias), (w, b) in zip(again.model.arguments["layers"], record.model.arguments["layers"], strict=True):
        np.testing.assert_array_equal(weight, w)
        np.testing.assert_array_equal(bias, b)
    assert again.model.arguments["classes"].tolist() == ["a", "b"]
    _late.forget(place)
    assert _late.kept(place) is None


def test_what_waits_for_mlflow_is_kept_beside_a_result_in_a_store_of_objects(place):
    out = path_of("memory://results/out")
    run = tracking.TrackedRun(None, "http://127.0.0.1:5000", "r", "pca", "7")
    assert _late.kept(out) is None
    record = some_record(place)
    _late.keep(out, run, record)
    again, where = _late.kept(out)
    assert where["run_id"] == "r" and again.metrics == record.metrics
    np.testing.assert_array_equal(again.model.arguments["components"], np.eye(3)[:2])
    _late.forget(out)
    assert _late.kept(out) is None
