"""The flows under a real server and worker: they are scheduled, they run, and bad parameters are refused."""

import json
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest


def test_a_submitted_run_completes(server, parameters, tiny, tmp_path):
    ended = server.finished(server.submit("pca/pca", parameters)["id"])
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]

    figures = json.loads((tmp_path / "result" / "result.json").read_text())
    expected = np.linalg.eigvalsh(np.cov(tiny[1].astype(float), rowvar=False))[::-1][:3]
    np.testing.assert_allclose(figures["explained_variance"], expected, rtol=1e-5)

    report = server.artifacts(ended)["pca-result"]
    assert figures["mlflow"]["run_id"] in report["data"]
    assert "| component | explained variance |" in report["data"]
    assert f"{expected[0]:.3f}"[:4] in report["data"]


@pytest.mark.parametrize(
    ("flow", "wrong", "named"),
    [
        ("sweep", {"strengths": [1, -1]}, "strengths[1]"),
        ("sweep", {"model": ["svm"]}, "model[0]"),
        ("mlp", {"dropout": 1}, "dropout"),
    ],
)
def test_what_cannot_be_is_refused_at_submit(server, flow, wrong, named):
    bad = {"config": {"source": "x.npy", "labels": "y.npy", "hold_out": 10} | wrong}
    assert named in server.refusal(f"{flow}/{flow}", bad)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"n_components": 0}, "n_components"),
        ({"engine": {"kind": "sprak"}}, "kind"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_bad_parameter_is_refused_at_submit(server, parameters, wrong, named):
    assert named in server.refusal("pca/pca", {"config": parameters["config"] | wrong})


def test_bad_data_fail_the_run_in_one_line_and_are_not_tried_again(server, parameters, tmp_path):
    parameters["config"]["source"] = str(tmp_path / "missing.npy")
    ended = server.finished(server.submit("pca/pca", parameters)["id"])
    assert ended["state"]["type"] == "FAILED"
    assert "missing.npy: no such file or directory" in ended["state"]["message"]
    assert not (tmp_path / "result").exists()


def test_the_nightly_schedule_has_created_runs_at_two(server):
    deployment = server.deployment("pca/pca-nightly")
    runs = server.wait_for(lambda: server.runs(deployment, "SCHEDULED"), 240, "scheduled runs")
    times = [datetime.fromisoformat(run["expected_start_time"]) for run in runs]
    assert len(times) >= 3
    assert all((time.hour, time.minute, time.utcoffset()) == (2, 0, timedelta(0)) for time in times)
    assert {later - earlier for earlier, later in pairwise(times)} == {timedelta(days=1)}
    assert deployment["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert deployment["global_concurrency_limit"]["limit"] == 1


def test_an_interval_schedule_creates_runs_that_complete(server, parameters):
    parameters["config"] |= {"overwrite": True, "tracking": {"enabled": False}}
    done = server.call(
        *("--no-prompt", "deploy", "flows/pca.py:pca", "--name", "often", "--pool", "lazypipe"),
        *("--interval", "15", "--params", json.dumps(parameters)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    deployment = server.deployment("pca/often")
    try:
        runs = server.wait_for(lambda: len(found := server.runs(deployment)) >= 3 and found, 240, "runs at intervals")
        assert all(run["auto_scheduled"] for run in runs)
        times = [datetime.fromisoformat(run["expected_start_time"]) for run in runs]
        assert {later - earlier for earlier, later in pairwise(times)} == {timedelta(seconds=15)}
        completed = server.wait_for(
            lambda: server.runs(deployment, "COMPLETED", "FAILED", "CRASHED"), 300, "a run to end"
        )
        assert completed[0]["state"]["type"] == "COMPLETED", completed[0]["state"]["message"]
    finally:
        server.post(f"/deployments/{deployment['id']}/pause_deployment")
        server.api.delete(f"/deployments/{deployment['id']}")
