"""Where a result comes from is in result.json and in MLflow; an attempt after a failure goes on in its run."""

import json
import os
import signal
import subprocess
import sys
import time

import mlflow
import numpy as np
import pytest

import lazypipe as lp
from jobs import _trace, pca
from jobs._observed import observed
from lazypipe.progress import PassDone, StageDone, StageStarted, TaskDone
from lazypipe.tracking import attempts

WORKER = """
import json, os, sys, time
from jobs import pca
from jobs._observed import observed
from lazypipe.progress import PassDone

def listen(event):
    if isinstance(event, PassDone) and event.index == 3:
        {action}

with observed(listen):
    pca.run(pca.PCAConfig.model_validate_json(sys.argv[1]))
"""
KILL = "os.kill(os.getpid(), 9)"
WAIT = "open('waits', 'w').close()\n        while not os.path.exists('go on'): time.sleep(0.05)"


@pytest.fixture(autouse=True)
def place(place, stored):
    """The same with a wide matrix that takes some passes, and a store."""
    rng = np.random.default_rng(0)
    decay = np.arange(1, 61)[:, None] ** -0.5
    np.save("wide.npy", (decay * rng.normal(size=(60, 400))).astype(np.float32))
    return place


def config(place, **options):
    tracking = {"uri": f"sqlite:///{place}/mlflow.db"}
    given = {"source": "wide.npy", "n_components": 2, "solver": "gradient", "engine": {"kind": "serial"}}
    return pca.PCAConfig(**{**given, "tracking": tracking, **options})


def runs(place, **options):
    """All runs of the experiment, the first one first."""
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{place}/mlflow.db")
    experiment = client.get_experiment_by_name("pca")
    return client, client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"], **options)


def fails_at(index):
    """A listener of a run that is not to get beyond a pass."""

    def listen(event):
        if isinstance(event, PassDone) and event.index == index:
            raise lp.EngineError("the cluster is gone")

    return listen


def steps(client, run, name="residual"):
    return [metric.step for metric in client.get_metric_history(run.info.run_id, name)]


def test_result_and_run_tell_where_they_come_from(place):
    flow = {"prefect.flow_run_id": "0123", "prefect.flow_run_name": "wise-owl", "prefect.flow_run_url": "http://p/0123"}
    heard = []
    with observed(heard.append, tags=flow):
        result = pca.run(config(place, out="out"))
    assert any(isinstance(event, PassDone) for event in heard)
    _, (run,) = runs(place)
    tags, trace = run.data.tags, json.loads((place / "out" / "result.json").read_text())["trace"]
    assert trace == result.figures["trace"]
    assert flow.items() <= tags.items() and flow.items() <= trace.items()
    assert tags["lazypipe.key"] == trace["key"] and len(trace["key"]) == 16
    assert tags["lazypipe.data"] == trace["data"] == lp.open_matrix("wide.npy").fingerprint()
    assert tags["lazypipe.engine"] == trace["engine"] == result.figures["engine"]
    assert tags["lazypipe.host"] == trace["host"]
    assert tags["lazypipe.attempts"] == "1" and trace["attempts"] == 1
    assert tags.get("mlflow.source.git.commit") == trace.get("commit") == _trace.commit().get("commit")
    assert tags["mlflow.source.name"] == "python -m jobs pca"
    assert run.info.run_name == "pca of wide.npy"
    assert int(run.data.params["plan.peak_bytes"]) > 0
    metrics = run.data.metrics
    for name in ("peak_memory_bytes", "planned_peak_bytes", "bytes_read", "passes", "seconds"):
        assert metrics[name] == trace[name] > 0
    assert metrics["peak_memory_bytes"] <= metrics["planned_peak_bytes"]
    assert metrics["bytes_read"] >= metrics["passes"] * 60 * 400 * 4
    assert "url" not in result.figures["mlflow"], "a file has no page"


def test_what_the_engine_tells_of_itself_is_in_the_trace(place, monkeypatch):
    from lazypipe.engines.serial import SerialEngine

    found = {"application_id": "app-7", "dashboard": "http://127.0.0.1:8787/status"}
    monkeypatch.setattr(SerialEngine, "trace", lambda engine: found)
    result = pca.run(config(place))
    _, (run,) = runs(place)
    assert found.items() <= result.figures["trace"].items()
    assert {f"lazypipe.{name}": value for name, value in found.items()}.items() <= run.data.tags.items()


def test_bytes_are_counted_as_far_as_a_stage_got():
    reading = _trace.BytesRead()
    for event in (StageStarted("pass 1", 4, 100), TaskDone(1, 4), StageDone("pass 1", 0.1)):
        reading(event)
    assert reading.total == 100
    for event in (StageStarted("pass 2", 4, 100), TaskDone(1, 4)):
        reading(event)
    assert reading.total == 125
    reading(TaskDone(2, 4, share=0.8))
    assert reading.total == 180


def test_a_commit_is_told_only_of_a_checkout_that_holds_the_sources(place, monkeypatch):
    subprocess.run(["git", "init", "-q", "."], check=True)
    package = place / "lib" / "lazypipe"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    _trace.commit.cache_clear()
    monkeypatch.setattr(lp, "__file__", str(package / "__init__.py"))
    assert _trace.commit() == {}
    subprocess.run(["git", "add", "lib"], check=True)
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *who, "commit", "-q", "-m", "first"], check=True)
    _trace.commit.cache_clear()
    assert _trace.commit()["dirty"] == "false" and len(_trace.commit()["commit"]) == 40
    (package / "__init__.py").write_text("changed")
    _trace.commit.cache_clear()
    assert _trace.commit()["dirty"] == "true"
    _trace.commit.cache_clear()


def test_a_retry_goes_on_in_the_run_of_the_attempt_that_failed(place):
    with pytest.raises(lp.EngineError), observed(fails_at(4)):
        pca.run(config(place, out="first"))
    client, (failed,) = runs(place)
    assert failed.info.status == "FAILED" and "the cluster is gone" in failed.data.tags["error"]
    result = pca.run(config(place, out="second"))
    client, (run,) = runs(place)
    assert run.info.run_id == failed.info.run_id == result.run_id
    assert run.info.status == "FINISHED" and "error" not in run.data.tags
    assert run.data.tags["lazypipe.attempts"] == "2" and result.figures["trace"]["attempts"] == 2
    assert run.data.params["out"] == "first" and run.data.tags["lazypipe.now.out"] == "second"
    assert steps(client, run) == [one["pass"] for one in result.figures["history"]], "each pass once"
    assert len(run.inputs.dataset_inputs) == 1
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"result.json", "scree.png"} <= files


def test_a_finished_run_is_left_alone_by_the_next(place):
    first, second = pca.run(config(place)), pca.run(config(place))
    assert first.run_id != second.run_id
    _, found = runs(place)
    assert [run.data.tags["lazypipe.attempts"] for run in found] == ["1", "1"]


def test_another_config_is_another_run(place):
    with pytest.raises(lp.EngineError), observed(fails_at(2)):
        pca.run(config(place))
    pca.run(config(place, n_components=3))
    _, found = runs(place)
    assert sorted(run.info.status for run in found) == ["FAILED", "FINISHED"]


def start(place, action, given):
    program = WORKER.format(action=action)
    return subprocess.Popen([sys.executable, "-c", program, given.model_dump_json()], cwd=place)


def test_a_killed_run_that_is_started_again_becomes_finished(place):
    given = config(place, state="state")
    assert start(place, KILL, given).wait(120) == -signal.SIGKILL
    client, (killed,) = runs(place)
    assert killed.info.status == "RUNNING"
    result = pca.run(given)
    client, (run,) = runs(place)
    assert run.info.run_id == killed.info.run_id
    assert run.info.status == "FINISHED" and run.data.tags["lazypipe.attempts"] == "2"
    assert steps(client, run) == [one["pass"] for one in result.figures["history"]]


def test_two_equal_runs_at_once_stay_two(place):
    given = config(place)
    other = start(place, WAIT, given)
    try:
        deadline = time.monotonic() + 120
        while not (place / "waits").exists():
            assert time.monotonic() < deadline and other.poll() is None
            time.sleep(0.1)
        pca.run(given)
    finally:
        (place / "go on").touch()
        assert other.wait(120) == 0
    _, found = runs(place)
    assert [run.info.status for run in found] == ["FINISHED"] * 2


def test_runs_of_other_hosts_are_taken_within_one_flow_run_only():
    here, flow = attempts.this_process(), {"prefect.flow_run_id": "f"}
    there = {attempts.PROCESS: "elsewhere:7:1000"}
    assert not attempts.is_abandoned("RUNNING", there, flow)
    assert not attempts.is_abandoned("FAILED", there, {})
    assert attempts.is_abandoned("RUNNING", there | flow, flow)
    assert not attempts.is_abandoned("RUNNING", there | flow, {"prefect.flow_run_id": "g"})
    assert not attempts.is_abandoned("RUNNING", {attempts.PROCESS: here}, flow), "this process is alive"
    assert attempts.is_abandoned("FAILED", {attempts.PROCESS: here}, {})
    host, pid, start = here.split(":")
    assert attempts.is_abandoned("RUNNING", {attempts.PROCESS: f"{host}:{pid}:{float(start) - 60:.0f}"}, {})
    assert not attempts.is_abandoned("RUNNING", {}, flow), "begun by something else"


def test_the_process_of_a_run_is_found(place):
    _, pid, start = attempts.this_process().split(":")
    assert int(pid) == os.getpid() and abs(float(start) - time.time()) < 86_400
