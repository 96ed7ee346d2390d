"""What people see: an interval deployment fires by itself, and its run stands on the pages of both servers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from service.browser import CHROMIUM, browser
from service.stacks import deployments

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

INTERVAL_SECONDS = 20
COLOURS = 200  # of a page with text and figures; a blank one has a handful


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A matrix of 200 x 5,000 with five components above the noise."""
    generator = np.random.default_rng(0)
    signal = generator.normal(size=(200, 5)) * [9, 7, 5, 4, 3] @ generator.normal(size=(5, 5_000))
    path = tmp_path_factory.mktemp("wide") / "wide.npy"
    np.save(path, (signal + generator.normal(size=(200, 5_000))).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def fired(stack, wide, tmp_path_factory):
    """The first run of an interval deployment, which nobody asked for, once it has completed."""
    results = tmp_path_factory.mktemp("results")
    config = {
        "source": str(wide),
        "n_components": 5,
        "out": str(results / "pca"),
        "overwrite": True,
        "engine": {"kind": "dask", "address": stack.dask_address, "memory": "128MiB"},
    }
    every = {
        "name": "pca-often",
        "entrypoint": "flows/pca.py:pca",
        "description": "Components of a small matrix every few seconds",
        "tags": ["pca", "interval"],
        "parameters": {"config": config},
        "schedules": [{"interval": INTERVAL_SECONDS}],
        "concurrency_limit": {"limit": 1, "collision_strategy": "CANCEL_NEW"},
    }
    (stack.project / "often.yaml").write_text(deployments(every))
    deploy = (sys.executable, "-m", "flows.deploy", "--file", "often.yaml")
    done = subprocess.run(
        deploy, check=False, cwd=stack.project, env=stack.env, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    deployment = stack.deployment("pca/pca-often")

    def ended():
        return [run for run in stack.runs(deployment, "COMPLETED", "FAILED", "CRASHED") if run["auto_scheduled"]]

    run = stack.wait_for(ended, 600, "a scheduled run to end")[0]
    stack.post(f"/deployments/{deployment['id']}/pause_deployment").raise_for_status()
    assert run["state"]["type"] == "COMPLETED", run["state"]["message"] + stack.said(run)
    return run


def test_an_interval_deployment_fires_by_itself_and_its_run_is_in_mlflow_with_its_figures(stack, fired):
    assert fired["created_by"]["type"] == "SCHEDULE"
    [run] = stack.tracked("pca", fired)
    assert run["info"]["status"] == "FINISHED"
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert metrics["converged"] == 1 and metrics["passes"] >= 1
    kept = {path.name for path in (stack.folder / "mlflow" / "artifacts").glob(f"**/{run['info']['run_id']}/**/*.png")}
    assert "scree.png" in kept


def test_pages_of_prefect_show_the_run_and_its_deployment(stack, fired, pictures, tmp_path):
    page_of = f"http://127.0.0.1:{stack.port}"
    with browser(tmp_path) as page:
        page.open(f"{page_of}/runs/flow-run/{fired['id']}", fired["name"], "Completed", "compute", "solver")
        require_picture(page.picture(pictures / "prefect-run.png"))
        page.click("Artifacts")
        page.shows("pca-result", "pca-progress", "pca-mlflow")
        require_picture(page.picture(pictures / "prefect-artifacts.png"))
        report = stack.artifacts(fired)["pca-result"]["id"]
        page.open(f"{page_of}/artifacts/artifact/{report}", "explained variance", "MLflow run")
        require_picture(page.picture(pictures / "prefect-report.png"))
        page.open(
            f"{page_of}/deployments/deployment/{fired['deployment_id']}",
            "pca-often",
            f"Every {INTERVAL_SECONDS} seconds",
        )
        require_picture(page.picture(pictures / "prefect-deployment.png"))


def test_pages_of_mlflow_show_the_run_and_its_figures(stack, fired, pictures, tmp_path):
    [run] = stack.tracked("pca", fired)
    there = f"{stack.mlflow_uri}/#/experiments/{run['info']['experiment_id']}/runs/{run['info']['run_id']}"
    with browser(tmp_path) as page:
        page.open(there, run["info"]["run_name"], "Parameters", "n_components")
        require_picture(page.picture(pictures / "mlflow-run.png"))
        page.open(f"{there}/artifacts", "scree.png")
        page.click("scree.png")
        require_picture(page.picture(pictures / "mlflow-figure.png"))
        page.open(f"{stack.mlflow_uri}/#/experiments/{run['info']['experiment_id']}/runs", run["info"]["run_name"])
        require_picture(page.picture(pictures / "mlflow-runs.png"))


def require_picture(path: Path) -> None:
    """Fail where a picture is blank."""
    with Image.open(path) as image:
        colours = image.convert("RGB").getcolors(maxcolors=2**24)
    assert colours is not None and len(colours) > COLOURS, f"{path}: {len(colours or [])} colours"
