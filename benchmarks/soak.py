"""Half an hour of scheduled small runs, two at a time: does any fail, does any server grow?

    python benchmarks/soak.py [--minutes 30] [--runs 200] [--patience 3] [--folder DIR] [--results DIR]

Starts the stack (`python -m flows.stack up`) in a folder of its own and on free ports, with one deployment: a PCA on
its Dask cluster, tracked on its MLflow server, scheduled every MINUTES / RUNS. Once so many runs have begun, the
schedule is paused. Every 5 seconds memory and open files of each server are taken, of its processes together (of the
Prefect worker without the runs that it starts); memory that processes share counts once. How fast both grow is the
slope of a line through minute means, the first fifth left out, with its 95% interval. Exit code 1 where a run did not
complete, two were not enough, one gave other bits, or MLflow has not each once. Writes results/soak.{json,md,png}.

A machine that is too slow for the interval runs late: what was not done within PATIENCE × MINUTES is given up.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from subprocess import run
from typing import Any

import httpx
import numpy as np
import psutil
import soak_report
from common import cores, describe_machine, today, versions
from servers import ROOT, environment, free_port

from flows.stack import processes

RESULTS = Path(__file__).parent / "results"
SAMPLE_SECONDS = 5.0
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
AT_ONCE = 2
PROJECT = """name: soak
pull:
  - prefect.deployments.steps.set_working_directory: {{directory: "{folder}"}}
deployments:
  - name: soak
    entrypoint: flows/pca.py:pca
    description: A small PCA, again and again
    parameters:
      config:
        source: {folder}/small.npy
        n_components: 3
        solver: gradient
        engine: {{kind: dask, address: "tcp://127.0.0.1:{port}", memory: 128MiB}}
    schedules: [{{interval: {interval}}}]
    work_pool: {{name: lazypipe}}
"""


class Stack:
    """The servers, and what the benchmark asks of them."""

    def __init__(self, folder: Path, interval: float):
        self.folder, self.home = folder, folder / "stack"
        self.ports = {name: free_port() for name in ("prefect", "mlflow", "dask", "dask-page")}
        for name in ("flows", "jobs", "lazypipe", "conf"):
            (folder / name).symlink_to(ROOT / name)
        values = np.random.default_rng(0).normal(size=(400, 300)) * np.linspace(2, 1, 300)
        np.save(folder / "small.npy", values.astype(np.float32))
        text = PROJECT.format(folder=folder, port=self.ports["dask"], interval=interval)
        (folder / "prefect.yaml").write_text(text)
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{self.ports['prefect']}/api", timeout=60, trust_env=False)

    def __enter__(self) -> "Stack":
        ports = [word for name, port in self.ports.items() for word in (f"--ports.{name}", str(port))]
        self._call("up", "--project", str(self.folder), "--flow-runs", str(AT_ONCE), *ports)
        return self

    def __exit__(self, *_: object) -> None:
        self._call("down")
        self.api.close()

    def _call(self, verb: str, *options: str) -> None:
        command = [sys.executable, "-m", "flows.stack", verb, "--folder", str(self.home), *options]
        done = run(
            command, cwd=self.folder, env=environment(), capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{verb}: {done.stderr[-2000:]}")

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """As Prefect's client asks: 503 is SQLite that wants to be asked again."""
        for _ in range(20):
            answer = self.api.post(path, json=body)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(1)
        return answer.raise_for_status().json()

    def deployment(self) -> str:
        return str(self.api.get("/deployments/name/pca/soak").raise_for_status().json()["id"])

    def begun(self) -> list[dict[str, Any]]:
        """Runs that are no longer waiting for their time, the earliest first."""
        found: list[dict[str, Any]] = []
        asked = {
            "flow_runs": {"state": {"type": {"any_": ["RUNNING", "CANCELLING", *ENDED]}}},
            "sort": "START_TIME_ASC",
        }
        while page := self.post("/flow_runs/filter", asked | {"limit": 200, "offset": len(found)}):
            found += page
        return found

    def pause(self) -> None:
        """Schedule no more; what was scheduled and waits goes."""
        self.api.patch(f"/deployments/{self.deployment()}", json={"paused": True}).raise_for_status()

    def states(self, flow_run: str) -> dict[str, float]:
        """When the run was in each state last, seconds since 1970."""
        found = self.api.get("/flow_run_states/", params={"flow_run_id": flow_run}).raise_for_status().json()
        return {state["type"]: instant(state["timestamp"]) for state in found}

    def tracked(self) -> dict[str, int]:
        """How many runs MLflow has in each state."""
        uri = f"http://127.0.0.1:{self.ports['mlflow']}/api/2.0/mlflow"
        with httpx.Client(timeout=60, trust_env=False) as client:
            found = client.get(f"{uri}/experiments/get-by-name", params={"experiment_name": "pca"}).raise_for_status()
            asked = {"experiment_ids": [found.json()["experiment"]["experiment_id"]], "max_results": 10_000}
            answer = client.post(f"{uri}/runs/search", json=asked).raise_for_status().json()
        states = [one["info"]["status"] for one in answer.get("runs", [])]
        return {state: states.count(state) for state in sorted(set(states))}


class Watch(threading.Thread):
    """Memory and open files of each server, every few seconds while it runs."""

    def __init__(self, home: Path):
        super().__init__(daemon=True)
        self.home, self.over, self.begun = home, threading.Event(), time.monotonic()
        self.samples: dict[str, list[tuple[float, float, int]]] = {}  # minutes, MiB, files

    def run(self) -> None:
        while not self.over.wait(SAMPLE_SECONDS):
            for name, record in processes.records(self.home).items():
                members = processes.family(record) if name != "worker" else [record.process()]
                taken = [look(one) for one in members if one is not None]
                if taken and all(taken):
                    minutes = (time.monotonic() - self.begun) / 60
                    memory, files = (sum(column) for column in zip(*[one for one in taken if one], strict=True))
                    self.samples.setdefault(name, []).append((minutes, memory / 2**20, int(files)))

    def end(self) -> dict[str, list[tuple[float, float, int]]]:
        self.over.set()
        self.join()
        return self.samples


def look(process: psutil.Process) -> tuple[float, int] | None:
    """Bytes and open files of a process; None where it ended meanwhile."""
    try:
        info = process.memory_full_info()
        return float(getattr(info, "pss", info.rss)), process.num_fds()
    except psutil.Error:
        return None


def instant(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def soak(stack: Stack, minutes: float, runs: int, patience: float) -> list[dict[str, Any]]:
    """Wait until so many runs have begun and all of them ended; the runs."""
    deadline, told, paused = time.monotonic() + 60 * minutes * patience, 0.0, False
    while True:
        found = stack.begun()
        ended = [one for one in found if one["state"]["type"] in ENDED]
        late = time.monotonic() > deadline
        if not paused and (len(found) >= runs or late):
            stack.pause()
            paused, deadline = True, time.monotonic() + 120
        elif paused and (len(ended) == len(found) or late):
            return found
        if time.monotonic() > told + 60:
            print(f"{len(ended)} of {runs} ended, load {os.getloadavg()[0]:.1f}", flush=True)
            told = time.monotonic()
        time.sleep(2)


def told(stack: Stack, one: dict[str, Any]) -> dict[str, Any]:
    """A run as it is kept: times in seconds since it was expected."""
    expected, states = instant(one["expected_start_time"]), stack.states(one["id"])
    kept = {"state": one["state"]["type"], "message": (one["state"]["message"] or "")[:300], "expected": expected}
    names = {"PENDING": "pending", "RUNNING": "running", one["state"]["type"]: "ended"}
    return kept | {to: states[name] - expected for name, to in names.items() if name in states}


def most_at_once(rows: list[dict[str, Any]]) -> int:
    """Of runs between RUNNING and their end."""
    begun = [row for row in rows if "running" in row and "ended" in row]
    edges = [(row["expected"] + row["running"], 1) for row in begun]
    edges += [(row["expected"] + row["ended"], -1) for row in begun]
    level = most = 0
    for _, step in sorted(edges):
        level += step
        most = max(most, level)
    return most


def slope(minutes: np.ndarray, values: np.ndarray) -> dict[str, float] | None:
    """Growth an hour and the half width of its 95% interval, by a line through minute means after the first fifth."""
    from scipy.stats import linregress, t

    kept = minutes >= minutes[-1] / 5
    whole = minutes[kept].astype(int)
    means = [(minute, values[kept][whole == minute].mean()) for minute in np.unique(whole)]
    if len(means) < 4:
        return None
    line = linregress(*zip(*means, strict=True))
    half = t.ppf(0.975, len(means) - 2) * line.stderr
    return {"per_hour": 60 * line.slope, "half_width": 60 * half, "mean": float(np.mean([value for _, value in means]))}


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """What it comes to."""
    rows, growth = report["runs"], {}
    for name, samples in report["samples"].items():
        minutes, memory, files = np.array(samples, dtype=float).T
        growth[name] = {"memory": slope(minutes, memory), "files": slope(minutes, files), "last_files": int(files[-1]),
                        "first_files": int(files[0]), "most_files": int(files.max())}  # fmt: skip
    done = [row for row in rows if row["state"] == "COMPLETED"]
    took = {"late": [row["pending"] for row in done if "pending" in row],
            "starting": [row["running"] - row["pending"] for row in done if "pending" in row],
            "running": [row["ended"] - row["running"] for row in done]}  # fmt: skip
    return {
        "begun": len(rows), "completed": len(done), "at_once": most_at_once(rows), "growth": growth,
        "seconds": {name: [statistics.median(values), max(values)] for name, values in took.items() if values},
        "failed": [row["message"] for row in rows if row["state"] != "COMPLETED"],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--patience", type=float, default=3)
    parser.add_argument("--folder", default=None, help="where the stack and its data go for the run")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where soak.json, .md and .png go")
    options = parser.parse_args()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started goes
    report = {"date": today(), "machine": describe_machine(),
              "versions": versions(("prefect", "mlflow", "dask", "numpy")),
              "asked": {"minutes": options.minutes, "runs": options.runs, "at_once": AT_ONCE}}  # fmt: skip
    folder = Path(tempfile.mkdtemp(dir=options.folder, prefix="soak-"))
    folder.chmod(0o755)  # PostgreSQL's user has to come through
    try:
        with Stack(folder, 60 * options.minutes / options.runs) as stack:
            watch, begun, load = Watch(stack.home), time.monotonic(), [os.getloadavg()[0]]
            watch.start()
            found = soak(stack, options.minutes, options.runs, options.patience)
            report["minutes"] = (time.monotonic() - begun) / 60
            report["load"] = [one / cores() for one in [*load, os.getloadavg()[0]]]
            report["samples"] = watch.end()
            report["runs"] = [told(stack, one) for one in found]
            report["tracked"] = stack.tracked()
            report["postgres"] = "postgres" in report["samples"]
        arrays = [path.read_bytes() for path in folder.glob("results/pca-*/components.npy")]
        report["results"], report["bits"] = len(arrays), len({hashlib.sha256(one).hexdigest() for one in arrays})
        log = (stack.home / "logs" / "prefect.log").read_text(errors="replace")
        report["log_errors"] = len(re.findall(r"\b(ERROR|CRITICAL)\b", log))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report |= {"summary": summary(report), "finished": datetime.now(UTC).isoformat(timespec="seconds")}
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "soak.json").write_text(json.dumps(report) + "\n")
    return soak_report.write(report, options.results)


if __name__ == "__main__":
    sys.exit(main())
