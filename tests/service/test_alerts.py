"""Alerts of runs that a worker carries out: one for a failure, one for a process that was killed."""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import psutil
import pytest

SECRET = "hunter2-and-more"


@pytest.fixture
def webhook():
    """A server that keeps what it is sent: its address, and the list of messages."""
    got = []

    class Keep(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Keep)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def submit(stack, config, url):
    """A run of pca whose process has the webhook, and a secret, in its environment."""
    variables = {"env": {"LAZYPIPE_ALERT_WEBHOOK": url, "LAB_TOKEN": SECRET}}
    path = f"/deployments/{stack.deployment('pca/pca')['id']}/create_flow_run"
    answer = stack.post(path, parameters={"config": config}, job_variables=variables)
    return answer.raise_for_status().json()


def process_of(run):
    """The process of a flow run, by its environment."""
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if any("prefect" in word for word in words) and process.environ().get("PREFECT__FLOW_RUN_ID") == run["id"]:
                return process.pid
        except psutil.Error:
            continue
    return None


def test_a_run_that_fails_or_is_killed_is_told_once_without_its_secrets(stack, webhook, tmp_path):
    url, got = webhook
    config = {"source": str(tmp_path / SECRET / "missing.npy"), "n_components": 2, "engine": {"kind": "serial"}}
    ended = stack.finished(submit(stack, config, url)["id"], 300)
    assert ended["state"]["type"] == "FAILED"
    stack.wait_for(lambda: got, 120, "the alert")  # which follows the state
    [said] = got
    assert said["flow"] == "pca" and said["run"] == ended["name"] and "missing.npy: no such file" in said["error"]
    assert said["prefect_url"].endswith(f"/runs/flow-run/{ended['id']}")
    for text in (json.dumps(got), ended["state"]["message"], stack.said(ended["id"])):
        assert SECRET not in text and ("***" in text or "missing.npy" not in text)

    got.clear()
    fifo = tmp_path / "rows.npy"
    os.mkfifo(fifo)  # its reading lasts
    run = submit(stack, config | {"source": str(fifo)}, url)

    def running():
        state = stack.api.get(f"/flow_runs/{run['id']}").json()["state"]
        return state["type"] == "RUNNING" and process_of(run)

    pid = stack.wait_for(running, 300, "the process")
    os.kill(pid, signal.SIGKILL)
    assert stack.finished(run["id"], 300)["state"]["type"] == "CRASHED"
    stack.wait_for(lambda: got, 200, "the alert")
    [said] = got
    assert said["state"] == "Crashed" and said["run"] == run["name"]
