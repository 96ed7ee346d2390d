"""An MLflow server that is killed, away, silent or ill: the job finishes, and everything is logged once in the end."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import quote

import mlflow
import numpy as np
import pytest
from processes import free_port, wait_until
from service.mlflow_server import MLflowServer
from web_servers import answering, silent

import lazypipe as lp
from jobs import _late, log, mlp, pca, sweep
from jobs._observed import observed
from lazypipe.progress import PassDone

METRICS = ("converged", "passes", "seconds", "peak_memory_bytes", "planned_peak_bytes", "bytes_read")


@pytest.fixture(scope="module")
def one_server(tmp_path_factory):
    with MLflowServer(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def server(one_server):
    """It runs when a test begins, and has no run."""
    if one_server.process is None:
        one_server.serve()
    client = mlflow.MlflowClient(tracking_uri=one_server.uri)
    for run in client.search_runs([one.experiment_id for one in client.search_experiments()]):
        client.delete_run(run.info.run_id)
    return one_server


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    decay = np.arange(1, 101)[:, None] ** -0.5
    np.save("wide.npy", (decay * rng.normal(size=(100, 600))).astype(np.float32))
    return tmp_path


def options(server, **changed):
    """Of a fit of many passes."""
    given = {"source": "wide.npy", "n-components": 2, "solver": "deflation", "max-passes": 12, "out": "out"}
    given |= {"engine.kind": "serial", "tracking.uri": server.uri, "state": "state", **changed}
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def at_pass(index, act):
    """A listener that acts once, at a pass."""

    def listen(event):
        if isinstance(event, PassDone) and event.index == index:
            act()

    return listen


def run_of(server, job="pca"):
    """The one run of the experiment, and MLflow's client."""
    client = mlflow.MlflowClient(tracking_uri=server.uri)
    (run,) = client.search_runs([client.get_experiment_by_name(job).experiment_id], "tags.`lazypipe.attempts` != ''")
    return client, run


def is_whole(server, out):
    """Whether everything of a PCA is in MLflow, and once."""
    figures = json.loads((out / "result.json").read_text())
    client, run = run_of(server)
    assert run.info.status == "FINISHED" and run.info.run_id == figures["mlflow"]["run_id"]
    assert figures["mlflow"]["url"].startswith(server.uri)
    for name in METRICS:
        values = [metric.value for metric in client.get_metric_history(run.info.run_id, name)]
        assert values == [figures["metrics"][name]], name
    passes = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "residual")]
    assert passes == [(one["pass"], one["residual"]) for one in figures["history"]]
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"result.json", "scree.png", "convergence.png"} <= files
    (model,) = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    mlflow.set_tracking_uri(server.uri)
    rows = np.load("wide.npy")
    scores = mlflow.pyfunc.load_model(f"models:/{model.model_id}").predict(rows)
    components = np.load(out / "components.npy")
    np.testing.assert_allclose(scores, (rows - np.load(out / "mean.npy")) @ components.T, rtol=1e-3, atol=1e-3)
    return True


def test_a_server_killed_in_the_middle_costs_nothing_but_a_later_log(server, place, capsys, monkeypatch):
    monkeypatch.setattr(_late, "PATIENCE", 4.0)
    begun = time.monotonic()
    with observed(at_pass(3, server.kill)):
        assert pca.main(options(server)) == 0
    print(f"finished {time.monotonic() - begun:.1f} s after its start")
    said = capsys.readouterr()
    assert "The result is saved in out; trying for 4 s" in said.err
    (warning,) = re.findall("^Warning: .*MLflow did not answer.*$", said.err, re.MULTILINE)
    assert "What was not logged is in out/not_logged.json" in warning
    assert "python -m jobs log --result out" in warning and server.uri in warning
    assert "result    out" in said.out
    left = json.loads((place / "out" / "not_logged.json").read_text())
    figures = json.loads((place / "out" / "result.json").read_text())
    assert left["run"]["run_id"] == figures["mlflow"]["run_id"]
    assert {name for name, *_ in left["metrics"]} >= {*METRICS, "residual"}

    assert log.main(["--result", "out", "--tracking.uri", server.uri]) == 2
    assert capsys.readouterr().err.startswith(f"EngineError: {server.uri}: no MLflow store answers (")

    server.serve()
    assert log.main(["--result", "out", "--tracking.uri", server.uri]) == 0
    assert figures["mlflow"]["run_id"] in capsys.readouterr().out
    assert is_whole(server, place / "out")
    assert not list((place / "out").glob("not_logged*"))
    assert log.main(["--result", "out", "--tracking.uri", server.uri]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert is_whole(server, place / "out"), "nothing is there twice"


def test_a_server_killed_and_started_again_gets_all_metrics_once(server, place, capsys):
    with observed(at_pass(3, server.kill), at_pass(6, server.serve)):
        assert pca.main(options(server)) == 0
    assert "Warning: " not in capsys.readouterr().err.replace("Warning: not converged", "")
    assert is_whole(server, place / "out")
    assert not list((place / "out").glob("not_logged*"))


def test_a_server_that_comes_back_while_the_job_waits_gets_everything(server, place, capsys, monkeypatch):
    monkeypatch.setattr(_late, "PATIENCE", 400.0)  # a server takes its time on a busy machine

    def back():
        wait_until((place / "out" / "result.json").exists, 120, "the result, after which the job waits")
        server.serve()

    again = threading.Thread(target=back)
    with observed(at_pass(8, lambda: (server.kill(), again.start()))):
        assert pca.main(options(server)) == 0
    again.join()
    said = capsys.readouterr().err
    assert "did not answer" not in said
    assert is_whole(server, place / "out")
    assert not list((place / "out").glob("not_logged*"))


def test_runs_below_a_run_and_networks_are_logged_later_too(server, place, monkeypatch):
    monkeypatch.setattr(_late, "PATIENCE", 1.0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 5)).astype(np.float32)
    np.save("x.npy", x)
    np.save("y.npy", (x[:, 0] > 0).astype(int))
    shared = ["--source", "x.npy", "--labels", "y.npy", "--hold-out", "30", "--engine.kind", "serial"]
    shared += ["--tracking.uri", server.uri]
    with observed(lambda event: server.process and server.kill()):
        assert sweep.main([*shared, "--sizes", "20,60", "--out", "sweep"]) == 0
    server.serve()
    with observed(lambda event: server.process and server.kill()):
        network = ["--hidden", "4", "--epochs", "2", "--batch-size", "10", "--threads", "1", "--out", "mlp"]
        assert mlp.main([*shared, *network]) == 0
    assert (place / "mlp" / "not_logged.npz").is_file()
    server.serve()
    for name in ("sweep", "mlp"):
        assert log.main(["--result", name, "--tracking.uri", server.uri]) == 0
    client, run = run_of(server, "sweep")
    below = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    assert [child.info.run_name for child in below] == ["size 20", "size 60"]
    assert "learning_curves.png" in {item.path for item in client.list_artifacts(run.info.run_id)}
    client, run = run_of(server, "mlp")
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "train_loss")) == 2
    mlflow.set_tracking_uri(server.uri)
    classes = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model").predict(x)
    np.testing.assert_array_equal(classes, lp.MLP.load(place / "mlp" / "model.safetensors").predict("x.npy"))


def test_a_retry_finds_its_run_on_a_server(server, place):
    def away():
        raise lp.EngineError("the cluster is gone")

    with observed(at_pass(4, away)):
        assert pca.main(options(server)) == 2
    assert pca.main(options(server)) == 0
    _, run = run_of(server)
    assert run.data.tags["lazypipe.attempts"] == "2"
    assert is_whole(server, place / "out")


def refused(capsys, *given):
    """The one line with which a job is refused, within 10 s."""
    begun = time.monotonic()
    assert pca.main([*given, "--source", "wide.npy", "--n-components", "2", "--engine.kind", "serial"]) == 2
    assert time.monotonic() - begun < 10
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_server_that_is_down_at_the_start_is_told_with_what_to_do(capsys):
    address = f"http://127.0.0.1:{free_port()}"
    said = refused(capsys, "--tracking.uri", address)
    assert said.startswith(f"EngineError: {address}: no MLflow store answers (")
    assert "Connection refused" in said and "make up" in said and "mlflow server" in said


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_server_that_accepts_and_never_answers_is_told(capsys, scheme):
    with silent() as port:
        address = f"{scheme}://127.0.0.1:{port}"
        said = refused(capsys, "--tracking.uri", address)
    assert said.startswith(f"EngineError: {address}: no MLflow store answers (nothing within 4 s)")


def test_a_server_that_is_ill_is_told(capsys):
    class Ill(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(500)

        do_POST = do_GET

    with answering(Ill) as address:
        said = refused(capsys, "--tracking.uri", address)
    assert "the MLflow server answers 500" in said and "log" in said


def test_a_password_in_the_store_s_address_is_nowhere_afterwards(server, place, capsys, monkeypatch):
    secret = "open-sesame/42"
    address = f"http://me:{quote(secret, safe='')}@127.0.0.1:{server.port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    given = options(server)
    at = given.index("--tracking.uri")
    assert pca.main(given[:at] + given[at + 2 :]) == 0
    said = capsys.readouterr()
    assert f"browse    http://***@127.0.0.1:{server.port}" in said.out
    figures = json.loads((place / "out" / "result.json").read_text())
    assert figures["mlflow"]["uri"] == f"http://***@127.0.0.1:{server.port}"
    client, run = run_of(server)
    assert run.info.status == "FINISHED"
    assert {"result.json", "scree.png"} <= {item.path for item in client.list_artifacts(run.info.run_id)}
    texts = [said.out.encode(), said.err.encode()]
    texts += [path.read_bytes() for top in (place, server.folder) for path in top.rglob("*") if path.is_file()]
    assert len(texts) > 10
    for form in (secret, quote(secret, safe="")):
        assert not any(form.encode() in text for text in texts)
