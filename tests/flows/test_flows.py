"""Flows called in this process, on a real server: what they compute, report, say, and how they end."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from types import SimpleNamespace
from uuid import uuid4

import numpy as np
import pytest
import zarr
from processes import wait_until

import lazypipe as lp
from flows import _naming, _observing, _stages
from flows._observing import Published
from flows._pace import Pace
from flows.covariance import covariance
from flows.linear import linear
from flows.mlp import mlp
from flows.pca import pca
from flows.predict import predict
from flows.recordings import recordings
from flows.sta import sta
from flows.sweep import sweep
from flows.transform import transform
from jobs._observed import observers
from jobs.covariance import CovarianceConfig
from jobs.linear import LinearConfig
from jobs.mlp import MLPConfig
from jobs.pca import PCAConfig
from jobs.predict import PredictConfig
from jobs.recordings import RecordingsConfig
from jobs.sta import StaConfig
from jobs.sweep import SweepConfig
from jobs.transform import TransformConfig
from lazypipe.progress import EpochDone, PassDone, StageStarted, TaskDone, WorkerSaid


@pytest.fixture
def common(parameters):
    """What a run of any job needs."""
    return {key: value for key, value in parameters["config"].items() if key != "n_components"}


def report(server, flow):
    """The text of the report of the last run of a flow."""
    return server.artifacts(server.last(flow))[f"{flow}-result"]["data"]


def test_covariance(here, tiny, common, tmp_path):
    result = covariance(CovarianceConfig.model_validate(common))
    expected = np.cov(tiny[1].astype(float), rowvar=False)
    np.testing.assert_allclose(np.load(result.out / "covariance.npy"), expected, rtol=1e-5, atol=1e-5)
    assert "| variance |" in report(here, "covariance")


def test_a_regression(here, tiny, common, tmp_path):
    rows = tiny[1].astype(float)
    target = rows @ np.arange(rows.shape[1]) + 3 + np.random.default_rng(1).normal(size=len(rows))
    np.save(tmp_path / "target.npy", target)
    result = linear(LinearConfig.model_validate(common | {"target": str(tmp_path / "target.npy")}))
    fitted, (rest,), *_ = np.linalg.lstsq(np.column_stack([rows, np.ones(len(rows))]), target)
    np.testing.assert_allclose(np.load(result.out / "coef.npy"), fitted[:-1], rtol=1e-5, atol=1e-5)
    r2 = 1 - rest / ((target - target.mean()) ** 2).sum()
    assert result.figures["r2"] == pytest.approx(r2, rel=1e-6)
    text = report(here, "linear")
    assert f"{r2:.4f}"[:5] in text and result.run_id in text


def test_scores_of_a_projection(here, tiny, parameters, tmp_path):
    source, rows = tiny
    fitted = pca(PCAConfig.model_validate(parameters["config"]))
    mean, components = (np.load(fitted.out / f"{name}.npy") for name in ("mean", "components"))
    scores = tmp_path / "scores.zarr"
    given = {"source": str(source), "model": str(fitted.out), "scores": str(scores), "out": str(tmp_path / "said")}
    given |= {"engine": {"kind": "serial"}, "tracking": {"enabled": False}}
    transform(TransformConfig.model_validate(given))
    expected = (rows.astype(float) - mean) @ components.T
    np.testing.assert_allclose(zarr.open_array(str(scores), mode="r")[:], expected, rtol=1e-4, atol=1e-4)
    assert f"| `{scores}` | {len(rows)} | {len(components)} |" in report(here, "transform")


def test_averages_of_a_recording(here, common, tmp_path):
    recording = np.random.default_rng(0).normal(size=(400, 2))
    np.save(tmp_path / "recording.npy", recording)
    np.savez(tmp_path / "spikes.npz", samples=[50, 100, 1, 120], units=[7, 7, 8, 8])
    common |= {"source": str(tmp_path / "recording.npy"), "spikes": str(tmp_path / "spikes.npz"), "window": [-3, 2]}
    result = sta(StaConfig.model_validate(common))
    mean = zarr.open_group(str(result.out / "sta.zarr"), mode="r")["mean"][:]
    np.testing.assert_allclose(mean, [(recording[47:52] + recording[97:102]) / 2, recording[117:122]], rtol=1e-12)
    text = report(here, "sta")
    assert "| unit | used | dropped |" in text and "| 8 | 1 | 1 |" in text and "400 × 2 float64" in text


def test_a_sweep_reports_its_verdict(here, tiny, common, tmp_path):
    np.save(tmp_path / "labels.npy", tiny[1][:, 0] > 0)
    common |= {"labels": str(tmp_path / "labels.npy"), "hold_out": 0.25, "sizes": [10, 20, 40], "strengths": [1, 0.1]}
    figures = sweep(SweepConfig.model_validate(common)).figures
    text = report(here, "sweep")
    assert text.startswith(f"- {figures['verdict_lines'][0]}\n")
    assert "| rows | model | C | training | validation |" in text and "| 40 | logistic | " in text
    assert "- cells: 6 of 6 done" in text and figures["mlflow"]["run_id"] in text


def test_a_sweep_of_which_every_cell_failed_fails_after_its_report(here, tiny, common, tmp_path, monkeypatch):
    np.save(tmp_path / "labels.npy", tiny[1][:, 0] > 0)
    common |= {"labels": str(tmp_path / "labels.npy"), "hold_out": 0.25, "sizes": [10], "strengths": [1]}
    monkeypatch.setattr("jobs.sweep.failure_of", lambda _: "all 1 cells failed, the first with: no luck.")
    said = r"all 1 cells failed, the first with: no luck\. What .*cells\.csv\."
    with pytest.raises(lp.DataError, match=said):
        sweep(SweepConfig.model_validate(common))
    assert "- cells: " in report(here, "sweep")
    with pytest.raises(lp.DataError, match=said):
        sweep(SweepConfig.model_validate(common | {"reuse": True}))
    here.log(here.last("sweep"), "unchanged: same data, config and code as")


def test_a_network_reports_its_epochs_and_predicts(here, tiny, common, tmp_path):
    np.save(tmp_path / "labels.npy", tiny[1][:, 0] > 0)
    common |= {"labels": str(tmp_path / "labels.npy"), "hold_out": 0.25, "hidden": [4], "batch_size": "all"}
    common |= {"epochs": 3, "threads": 1, "state": str(tmp_path / "state")}
    result = mlp(MLPConfig.model_validate(common))
    text = report(here, "mlp")
    assert text.startswith("- network: 8-4-2, relu, cross_entropy: 46 parameters")
    assert "| epoch | loss | accuracy | validation loss | validation accuracy | samples/s |" in text
    assert "- passes: 3, " in text and result.run_id in text

    said = tmp_path / "said.npy"
    predict(PredictConfig(source=str(tiny[0]), model=str(result.out), out=str(said)))
    assert np.load(said).shape == (60,)
    assert "said.npy: 60 " in report(here, "predict")


def test_a_night_on_which_nothing_changed_says_so(here, parameters, tmp_path):
    config = PCAConfig.model_validate(parameters["config"] | {"reuse": True})
    first = pca(config)
    made = (first.out / "result.json").stat().st_mtime_ns
    second = pca(config)
    assert second.reused and second.figures["explained_variance"] == first.figures["explained_variance"]
    assert (first.out / "result.json").stat().st_mtime_ns == made
    state = here.last("pca")["state"]
    assert (state["type"], state["name"]) == ("COMPLETED", "Unchanged")
    assert "same data, config and code as" in state["message"] and str(first.out) in state["message"]
    here.log(here.last("pca"), "unchanged: same data, config and code as")


def test_recordings_are_reported_and_a_run_without_new_ones_says_so(here, tmp_path):
    (tmp_path / "incoming").mkdir()
    config = RecordingsConfig(
        folder=str(tmp_path / "incoming"),
        window=(-3, 2),
        settle=0,
        out=str(tmp_path / "averages"),
        engine={"kind": "serial"},
        tracking={"enabled": False},
    )
    for name, bad in (("a", False), ("b", True)):
        values = np.random.default_rng(0).normal(size=(400, 2))
        np.save(tmp_path / "incoming" / f"{name}.npy", values * np.nan if bad else values)
        np.savez(tmp_path / "incoming" / f"{name}.spikes.npz", samples=[50, 100])
    np.save(tmp_path / "incoming" / "c.npy", values)
    with pytest.raises(lp.DataError, match=r"b\.npy: 1 try of 3: .*NaN"):
        recordings(config)
    run = here.last("recordings")
    text = here.artifacts(run)["recordings-result"]["data"]
    assert run["state"]["type"] == "FAILED" and "b.npy" in run["state"]["message"]
    assert "recordings  1 new, 1 waiting, 1 failed" in text
    assert "| `a.npy` | " in text and "| `c.npy` | 6.4KiB | waiting | for its spikes, c.spikes.npz |" in text
    np.save(tmp_path / "incoming" / "b.npy", values)
    assert recordings(config).new == ("b.npy",)
    assert recordings(config).new == ()
    state = here.last("recordings")["state"]
    assert (state["type"], state["name"]) == ("COMPLETED", "Unchanged") and "no new recording" in state["message"]


def emitting(events, server):
    """A job's ``run`` that tells ``events`` to whoever follows it, each from a thread as those of workers."""

    def run(config):
        for event in events:
            for listener in observers().listeners:
                thread = threading.Thread(target=listener, args=(event,))
                thread.start()
                thread.join()
        assert observers().tags["prefect.task_run_id"]
        run = {"id": observers().tags["prefect.flow_run_id"]}
        server.wait_for(lambda: "pca-progress" in server.artifacts(run), 60, "the progress while the job runs")

    return run


def test_workers_are_heard_in_the_log_and_progress_is_an_artifact(here):
    from prefect import flow

    said = [WorkerSaid("tcp://10.0.0.2:4000", 30, "80% of its memory is used"), WorkerSaid("gpu-1", 20, "hello")]
    events = [StageStarted("pass 1", 4), TaskDone(2, 4), PassDone(1, 1e-3), StageStarted("pass 2", 4), TaskDone(1, 4)]
    emit = emitting([*events, *said], here)

    def run(config):
        emit(config)
        return SimpleNamespace(lines=lambda: ["result    none"])

    run.__module__ = "jobs.pca"

    @flow(name="followed")
    def followed():
        return _stages.compute(run, None, 10) and None

    followed()
    run_ = here.last("followed")
    lines = here.log(run_, "tcp://10.0.0.2:4000", "gpu-1")
    levels = {line["message"]: line["level"] for line in lines if line["message"].startswith("worker ")}
    assert levels == {"worker tcp://10.0.0.2:4000: 80% of its memory is used": 30, "worker gpu-1: hello": 20}
    progress = here.artifacts(run_)["pca-progress"]
    assert progress["data"] == 100.0 and progress["description"].startswith("done in 0:0")
    assert "residual 1.0e-03" in progress["description"]


def test_a_server_that_does_not_take_the_progress_fails_nothing(here):
    said = []

    class Log:
        def warning(self, *words):
            said.append(words)

    class Broken(Published):
        def _put(self, percent, text):
            self.key = None  # no artifact has such a key
            super()._put("no number", text)

    with Broken("pca-progress", Pace(), Log()) as progress:
        progress(StageStarted("pass 1", 4))
        wait_until(lambda: said, 60, "the warning")
        progress(TaskDone(1, 4))
    assert len(said) == 1 and "the Prefect server does not take it" in said[0][0]


def test_a_run_whose_worker_died_before_its_work_began_ends_itself_once_it_is_cancelled(monkeypatch):
    @contextmanager
    def client(sync_client):
        cancelled = SimpleNamespace(is_cancelling=lambda: True, is_cancelled=lambda: False)
        yield SimpleNamespace(read_flow_run=lambda run: SimpleNamespace(state=cancelled))

    monkeypatch.setattr(_observing, "PARENT", os.getppid() + 1)  # which has gone
    monkeypatch.setattr(_observing, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(_observing, "get_client", client)
    monkeypatch.setattr(_observing, "flow_run", SimpleNamespace(id=str(uuid4())))
    asked, said = [], []
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append("to end"))
    try:
        Published("pca-progress", Pace(), SimpleNamespace(warning=said.append))._look_for_orders()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert asked == ["to end"] and said == ["cancelled, and the worker of this run is gone: it ends itself"]


def test_the_pace_of_passes_and_epochs():
    now = [0.0]
    pace = Pace(10, lambda: now[0])
    pace(StageStarted("pass 1", 4))
    assert (pace.percent, pace.text) == (0.0, "pass 1 of about 10")
    now[0] = 10.0
    pace(TaskDone(4, 4))
    pace(PassDone(1, 1e-3))
    assert pace.percent == 10.0
    assert pace.text == "pass 1 of about 10, 4 of 4 tasks, residual 1.0e-03, about 1:30 left"
    pace(StageStarted("pass 12", 4))
    assert pace.percent == 91.7  # of more passes than were expected
    pace(TaskDone(4, 4))
    assert pace.percent == 99.0
    pace = Pace(None, lambda: now[0])
    pace(StageStarted("covariance", 5))
    now[0] = 12.0
    pace(TaskDone(1, 5, 0.5))
    assert (pace.percent, pace.text) == (50.0, "covariance, 1 of 5 tasks, about 0:02 left")
    pace(EpochDone("", 3, 4, 30, {"train_loss": 0.25, "samples_per_second": 10.0}))
    assert (pace.percent, pace.text.split(", about")[0]) == (75.0, "epoch 3 of 4, train loss 0.25")


def test_what_is_written_to_a_pipe_that_nobody_reads_any_more_fails_nothing(tmp_path):
    """As the stderr of a flow run whose worker was killed."""
    code = (
        "import sys\nfrom contextlib import redirect_stderr\nfrom flows._observing import Unbroken\n"
        "sys.stdin.readline()\n"
        "with redirect_stderr(Unbroken(sys.stderr)):\n    print('x' * 100000, file=sys.stderr, flush=True)\n"
        f"open({str(tmp_path / 'done')!r}, 'w').close()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        child.stderr.close()
        child.stdin.write("go\n")
        child.stdin.close()
        child.wait(60)
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"source": "data/wide.npy"}, "pca of wide.npy"),
        ({"source": ["a/one.npy", "b/two.npy"]}, "pca of one.npy and others"),
        ({"folder": "data/incoming"}, "pca of incoming"),
        ({"source": "https://host/x.npy?X-Amz-Signature=0123456789"}, "pca of x.npy?X-Amz-Signature=***"),
        (None, "pca"),
    ],
)
def test_a_run_is_called_by_its_flow_and_its_source_without_secrets(monkeypatch, config, name):
    monkeypatch.setattr(_naming, "flow_run", SimpleNamespace(parameters={"config": config}, flow_name="pca"))
    assert _naming.named() == name
