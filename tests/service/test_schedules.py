"""Schedules that fire by themselves: each recording is taken once, and a slow run is never overlapped."""

import json

import numpy as np


def record(folder, name, seed):
    """A recording and its spikes."""
    np.save(folder / f"{name}.npy", np.random.default_rng(seed).normal(size=(400, 2)))
    np.savez(folder / f"{name}.spikes.npz", samples=[50, 100, 120])


def test_an_interval_takes_each_recording_of_a_folder_once(stack, tmp_path):
    incoming, out = tmp_path / "incoming", tmp_path / "out"
    incoming.mkdir()
    record(incoming, "a", 0)
    config = {"folder": str(incoming), "window": [-3, 2], "settle": 1, "out": str(out), "engine": {"kind": "serial"}}
    changed = {"parameters": {"config": config}, "schedules": [{"schedule": {"interval": 20}}], "concurrency_limit": 1}
    deployment = stack.copy_of("recordings/recordings-interval", name="soon", **changed)
    try:
        took = out / "a" / "result.json"
        stack.wait_for(took.exists, 300, "the first recording to be taken")
        before = took.stat().st_mtime_ns
        record(incoming, "b", 1)
        stack.wait_for((out / "b" / "result.json").exists, 300, "the second one")

        def idle():
            ended = stack.runs(deployment, "COMPLETED")
            return [run for run in ended if run["state"]["name"] == "Unchanged"]

        [run, *_] = stack.wait_for(idle, 300, "a run without a new one")
        assert run["auto_scheduled"] and "no new recording" in run["state"]["message"]
        assert took.stat().st_mtime_ns == before
        assert sorted(path.name for path in out.iterdir()) == [".taken", "a", "b"]
        assert len(json.loads(took.read_text())["units"]) == 1
        bad = [one for one in stack.runs(deployment, "FAILED", "CRASHED") if one["start_time"]]
        assert not bad, bad[0]["state"]["message"]
    finally:
        stack.api.delete(f"/deployments/{deployment['id']}")


def test_a_night_that_is_slow_is_not_overlapped_by_the_next(stack, tmp_path):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(400, 60)))
    slow = {"source": str(tmp_path / "rows.npy"), "n_components": 8, "solver": "deflation", "tol": 1e-15}
    slow |= {"max_passes": 1_000_000, "engine": {"kind": "serial"}, "tracking": {"enabled": False}}
    first = stack.submit("pca/pca-nightly", {"config": slow})
    try:
        stack.wait_for(lambda: stack.state(first)["type"] == "RUNNING", 300, "the first night to run")
        second = stack.submit("pca/pca-nightly", {"config": slow})
        assert stack.finished(second["id"])["state"]["type"] == "CANCELLED"
        assert stack.state(first)["type"] == "RUNNING"
    finally:
        stack.cancel(first)
        assert stack.finished(first["id"])["state"]["type"] == "CANCELLED"
