"""Alerts of runs that a worker carries out: one for a failure, one for a process that was killed."""

import json
import os

from service.stacks import processes_of
from web_servers import webhook

SECRET = "hunter2-and-more"


def submit(stack, config, url):
    """A run of pca whose process has the webhook, and a secret, in its environment."""
    variables = {"env": {"LAZYPIPE_ALERT_WEBHOOK": url, "LAB_TOKEN": SECRET}}
    return stack.submit("pca/pca", {"config": config}, job_variables=variables)


def test_a_run_that_fails_or_is_killed_is_told_once_without_its_secrets(stack, tmp_path):
    config = {"source": str(tmp_path / SECRET / "missing.npy"), "n_components": 2, "engine": {"kind": "serial"}}
    fifo = tmp_path / "rows.npy"
    os.mkfifo(fifo)  # its reading lasts
    with webhook() as (url, got, _):
        failed = stack.finished(submit(stack, config, url)["id"])
        assert failed["state"]["type"] == "FAILED"
        stack.wait_for(lambda: got, 120, "the alert")  # which follows the state

        run = submit(stack, config | {"source": str(fifo)}, url)
        stack.wait_for(lambda: stack.state(run)["type"] == "RUNNING", 300, "the run to begin")
        next(one for one in processes_of(run) if any("prefect" in word for word in one.cmdline())).kill()
        assert stack.finished(run["id"])["state"]["type"] == "CRASHED"
        stack.wait_for(lambda: len(got) > 1, 200, "the alert")
    [first, second] = got
    assert first["flow"] == "pca" and first["run"] == failed["name"]
    assert first["prefect_url"].endswith(f"/runs/flow-run/{failed['id']}")
    said = stack.said(failed, "missing.npy: no such file")
    for text in (first["error"], failed["state"]["message"], said):
        assert "***/missing.npy: no such file" in text
    assert not [text for text in (json.dumps(got), failed["state"]["message"], said) if SECRET in text]
    assert second["state"] == "Crashed" and second["run"] == run["name"]
