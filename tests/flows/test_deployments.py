"""The flows under a real server and worker: they are scheduled, they run, and bad parameters are refused."""

import json
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
import zarr

from jobs.covariance import CovarianceConfig
from jobs.dbn import DBNConfig
from jobs.linear import LinearConfig
from jobs.mlp import MLPConfig
from jobs.pca import PCAConfig
from jobs.rbm import RBMConfig
from jobs.sta import StaConfig
from jobs.sweep import SweepConfig
from jobs.transform import TransformConfig


def test_a_submitted_run_completes(server, parameters, tiny, tmp_path):
    run = server.post(f"/deployments/{server.deployment('pca/pca')['id']}/create_flow_run", parameters=parameters)
    ended = server.finished(run.raise_for_status().json()["id"])
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]

    figures = json.loads((tmp_path / "result" / "result.json").read_text())
    expected = np.linalg.eigvalsh(np.cov(tiny[1].astype(float), rowvar=False))[::-1][:3]
    np.testing.assert_allclose(figures["explained_variance"], expected, rtol=1e-5)

    artifacts = server.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [ended["id"]]}}).json()
    (report,) = [artifact for artifact in artifacts if artifact["key"] == "pca-result"]
    assert figures["mlflow"]["run_id"] in report["data"]
    assert "| component | explained variance |" in report["data"]
    assert f"{expected[0]:.3f}"[:4] in report["data"]


def test_a_run_of_the_other_flow_completes(server, tiny, parameters, tmp_path):
    config = {key: value for key, value in parameters["config"].items() if key != "n_components"}
    deployment = server.deployment("covariance/covariance")
    run = server.post(f"/deployments/{deployment['id']}/create_flow_run", parameters={"config": config})
    ended = server.finished(run.raise_for_status().json()["id"])
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
    expected = np.cov(tiny[1].astype(float), rowvar=False)
    np.testing.assert_allclose(np.load(tmp_path / "result" / "covariance.npy"), expected, rtol=1e-5, atol=1e-5)


def test_a_run_over_a_recording_completes(server, parameters, tmp_path):
    recording = np.random.default_rng(0).normal(size=(400, 2))
    np.save(tmp_path / "recording.npy", recording)
    np.savez(tmp_path / "spikes.npz", samples=[50, 100, 1, 120], units=[7, 7, 8, 8])
    config = {key: value for key, value in parameters["config"].items() if key != "n_components"}
    config |= {"source": str(tmp_path / "recording.npy"), "spikes": str(tmp_path / "spikes.npz"), "window": [-3, 2]}
    deployment = server.deployment("sta/sta")
    run = server.post(f"/deployments/{deployment['id']}/create_flow_run", parameters={"config": config})
    ended = server.finished(run.raise_for_status().json()["id"])
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
    mean = zarr.open_group(str(tmp_path / "result" / "sta.zarr"), mode="r")["mean"][:]
    np.testing.assert_allclose(mean, [(recording[47:52] + recording[97:102]) / 2, recording[117:122]], rtol=1e-12)
    artifacts = server.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [ended["id"]]}}).json()
    (report,) = [artifact for artifact in artifacts if artifact["key"] == "sta-result"]
    assert "| unit | used | dropped |" in report["data"]
    assert "| 8 | 1 | 1 |" in report["data"]
    assert "400 × 2 float64" in report["data"]


def test_a_sweep_completes_and_reports_its_verdict(server, tiny, parameters, tmp_path):
    np.save(tmp_path / "labels.npy", tiny[1][:, 0] > 0)
    config = {key: value for key, value in parameters["config"].items() if key != "n_components"}
    config |= {"labels": str(tmp_path / "labels.npy"), "hold_out": 0.25, "sizes": [10, 20, 40], "strengths": [1, 0.1]}
    deployment = server.deployment("sweep/sweep")
    run = server.post(f"/deployments/{deployment['id']}/create_flow_run", parameters={"config": config})
    ended = server.finished(run.raise_for_status().json()["id"])
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
    figures = json.loads((tmp_path / "result" / "result.json").read_text())
    artifacts = server.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [ended["id"]]}}).json()
    (report,) = [artifact for artifact in artifacts if artifact["key"] == "sweep-result"]
    assert report["data"].startswith(f"- {figures['verdict_lines'][0]}\n")
    assert "| rows | model | C | training | validation |" in report["data"] and "| 40 | logistic | " in report["data"]
    assert "- cells: 6 of 6 done" in report["data"] and figures["mlflow"]["run_id"] in report["data"]


def test_a_network_is_trained_and_reports_its_epochs(server, tiny, parameters, tmp_path):
    np.save(tmp_path / "labels.npy", tiny[1][:, 0] > 0)
    config = {key: value for key, value in parameters["config"].items() if key != "n_components"}
    config |= {"labels": str(tmp_path / "labels.npy"), "hold_out": 0.25, "hidden": [4], "batch_size": "all"}
    config |= {"epochs": 3, "threads": 1, "state": str(tmp_path / "state")}
    deployment = server.deployment("mlp/mlp")
    run = server.post(f"/deployments/{deployment['id']}/create_flow_run", parameters={"config": config})
    ended = server.finished(run.raise_for_status().json()["id"])
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
    figures = json.loads((tmp_path / "result" / "result.json").read_text())
    artifacts = server.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [ended["id"]]}}).json()
    (report,) = [artifact for artifact in artifacts if artifact["key"] == "mlp-result"]
    assert report["data"].startswith("- network: 8-4-2, relu, cross_entropy: 46 parameters")
    assert "| epoch | loss | accuracy | validation loss | validation accuracy | samples/s |" in report["data"]
    assert "- passes: 3, " in report["data"] and figures["mlflow"]["run_id"] in report["data"]
    bad = {"config": config | {"dropout": 1}}
    answer = server.post(f"/deployments/{deployment['id']}/create_flow_run", parameters=bad)
    assert answer.status_code == 409 and "dropout" in answer.text


@pytest.mark.parametrize(
    ("wrong", "named"), [({"strengths": [1, -1]}, "strengths[1]"), ({"model": ["svm"]}, "model[0]")]
)
def test_a_grid_that_cannot_be_is_refused_at_submit(server, wrong, named):
    bad = {"config": {"source": "x.npy", "labels": "y.npy", "hold_out": 10} | wrong}
    answer = server.post(f"/deployments/{server.deployment('sweep/sweep')['id']}/create_flow_run", parameters=bad)
    assert answer.status_code == 409
    assert named in answer.text


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"n_components": 0}, "n_components"),
        ({"engine": {"kind": "sprak"}}, "kind"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_bad_parameter_is_refused_at_submit(server, parameters, wrong, named):
    deployment = server.deployment("pca/pca")
    bad = {"config": parameters["config"] | wrong}
    answer = server.post(f"/deployments/{deployment['id']}/create_flow_run", parameters=bad)
    assert answer.status_code == 409
    assert named in answer.text
    assert bad not in [run["parameters"] for run in server.runs(deployment)]


def test_bad_data_fail_the_run_in_one_line_and_are_not_tried_again(server, parameters, tmp_path):
    parameters["config"]["source"] = str(tmp_path / "missing.npy")
    run = server.post(f"/deployments/{server.deployment('pca/pca')['id']}/create_flow_run", parameters=parameters)
    ended = server.finished(run.raise_for_status().json()["id"])
    assert ended["state"]["type"] == "FAILED"
    assert "missing.npy: no such file or directory" in ended["state"]["message"]
    assert not (tmp_path / "result").exists()


def test_the_nightly_schedule_has_created_runs_at_two(server):
    deployment = server.deployment("pca/pca-nightly")
    runs = server.wait_for(lambda: server.runs(deployment, "SCHEDULED"), 60, "scheduled runs")
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
        runs = server.wait_for(lambda: len(found := server.runs(deployment)) >= 3 and found, 60, "runs of the interval")
        assert all(run["auto_scheduled"] for run in runs)
        times = [datetime.fromisoformat(run["expected_start_time"]) for run in runs]
        assert {later - earlier for earlier, later in pairwise(times)} == {timedelta(seconds=15)}
        completed = server.wait_for(
            lambda: server.runs(deployment, "COMPLETED", "FAILED", "CRASHED"), 90, "a run to end"
        )
        assert completed[0]["state"]["type"] == "COMPLETED", completed[0]["state"]["message"]
    finally:
        server.post(f"/deployments/{deployment['id']}/pause_deployment")
        server.api.delete(f"/deployments/{deployment['id']}")


def test_the_parameters_of_prefect_yaml_are_valid():
    configs = {
        "flows/pca.py:pca": PCAConfig,
        "flows/covariance.py:covariance": CovarianceConfig,
        "flows/linear.py:linear": LinearConfig,
        "flows/mlp.py:mlp": MLPConfig,
        "flows/rbm.py:rbm": RBMConfig,
        "flows/dbn.py:dbn": DBNConfig,
        "flows/sta.py:sta": StaConfig,
        "flows/sweep.py:sweep": SweepConfig,
        "flows/transform.py:transform": TransformConfig,
    }
    text = (Path(__file__).parents[2] / "prefect.yaml").read_text()
    for deployment in yaml.safe_load(text)["deployments"]:
        configs[deployment["entrypoint"]].model_validate(deployment["parameters"]["config"])
