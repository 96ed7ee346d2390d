"""Alerts: one for a run that failed for good, none for one that did not, and no secret in any."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prefect import flow
from prefect.states import Completed

import lazypipe as lp
from flows import _stages
from flows._alerts import alert

SECRET = "hunter2-and-more"


@pytest.fixture
def webhook():
    """A server that keeps what it is sent: its address, and the list of messages; answers ``status[0]``."""
    got, status = [], [204]

    class Keep(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status[0])
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Keep)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook?token={SECRET}", got, status
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Lines:
    """What a stage gave."""

    def lines(self):
        return ["result    none"]


def flow_of(name, *attempts):
    """A flow around a job whose attempts end as given: an error, or well; retried at once."""
    left = list(attempts)

    def run(config):
        if isinstance(end := left.pop(0), Exception):
            raise end
        return Lines()

    @flow(name=name, on_failure=[alert], on_crashed=[alert])
    def around():
        compute = _stages.compute.with_options(retry_delay_seconds=0, retry_jitter_factor=None)
        compute(run, None)
        assert not left
        return Completed(name="Unchanged", message="nothing to do") if name == "unchanged" else None

    return around


def test_a_run_that_fails_for_good_is_told_once(here, webhook, monkeypatch):
    url, got, _ = webhook
    monkeypatch.setenv("LAZYPIPE_ALERT_WEBHOOK", url)
    lost = lp.EngineError("dask: tcp://10.0.0.1:8786 is gone")
    with pytest.raises(lp.EngineError):
        flow_of("cluster-gone", *[lost] * (_stages.RETRIES + 1))()
    [said] = got
    run = here.last("cluster-gone")
    assert said["flow"] == "cluster-gone" and said["run"] == run["name"] and said["state"] == "Failed"
    assert said["error"] == "EngineError: dask: tcp://10.0.0.1:8786 is gone" and said["host"]
    assert said["prefect_url"] == f"http://127.0.0.1:{here.port}/runs/flow-run/{run['id']}"
    assert said["mlflow_url"] is None


def test_retries_that_succeed_and_nights_without_change_are_not_told(here, webhook, monkeypatch):
    url, got, _ = webhook
    monkeypatch.setenv("LAZYPIPE_ALERT_WEBHOOK", url)
    flow_of("third-time", lp.EngineError("dask: gone"), lp.EngineError("dask: gone"), None)()
    assert here.last("third-time")["state"]["type"] == "COMPLETED"
    flow_of("unchanged", None)()
    assert here.last("unchanged")["state"]["name"] == "Unchanged"
    assert got == []


def test_no_secret_is_in_an_alert_a_log_or_a_state(here, webhook, monkeypatch):
    url, got, status = webhook
    monkeypatch.setenv("LAZYPIPE_ALERT_WEBHOOK", url)
    monkeypatch.setenv("DATABASE_PASSWORD", SECRET)
    bad = f"postgresql://me:{SECRET}@db/mlflow: no answer; user me, {SECRET}"
    with pytest.raises(lp.DataError) as raised:
        flow_of("leaky", lp.DataError(bad))()
    assert SECRET not in str(raised.value)
    status[0] = 500
    with pytest.raises(RuntimeError):
        flow_of("leaky", OSError(bad))()
    assert len(got) == 2 and "no answer" in got[0]["error"]
    run = here.last("leaky")
    lines = here.log(run, "alert: $LAZYPIPE_ALERT_WEBHOOK: OSError: it answered 500. It was not sent.")
    everything = json.dumps([got, lines, run, here.artifacts(run)])
    assert SECRET not in everything and "***" in everything


def test_a_command_gets_the_alert_and_its_failure_masks_nothing(here, monkeypatch, tmp_path):
    code = f"import sys; open({str(tmp_path / 'alert')!r}, 'w').write(sys.stdin.read()); sys.exit(len(sys.argv) - 1)"
    (tmp_path / "tell.py").write_text(code)
    monkeypatch.setenv("LAZYPIPE_ALERT_COMMAND", f"{sys.executable} '{tmp_path / 'tell.py'}'")
    with pytest.raises(lp.DataError, match=r"rows\.npy: NaN"):
        flow_of("told", lp.DataError("rows.npy: NaN"))()
    assert json.loads((tmp_path / "alert").read_text())["error"] == "DataError: rows.npy: NaN"
    monkeypatch.setenv("LAZYPIPE_ALERT_COMMAND", f"{sys.executable} '{tmp_path / 'tell.py'}' one")
    with pytest.raises(lp.DataError, match=r"rows\.npy: NaN"):
        flow_of("told", lp.DataError("rows.npy: NaN"))()
    here.log(here.last("told"), "alert: $LAZYPIPE_ALERT_COMMAND: OSError: it ended with 1")
    monkeypatch.setenv("LAZYPIPE_ALERT_COMMAND", "/no/such/program")
    with pytest.raises(lp.DataError, match=r"rows\.npy: NaN"):
        flow_of("told", lp.DataError("rows.npy: NaN"))()
    here.log(here.last("told"), "alert: $LAZYPIPE_ALERT_COMMAND: FileNotFoundError")
