"""Alerts: one for a run that failed for good, none for one that did not, and no secret in any."""

import json
import sys
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
import web_servers
from prefect import flow
from prefect.states import Completed

import lazypipe as lp
from flows import _stages
from flows._alerts import alert, mlflow_url

SECRET = "hunter2-and-more"


@pytest.fixture
def webhook():
    """The address of a webhook with a secret in it, the messages that it was sent, and the status it answers."""
    with web_servers.webhook() as (address, got, status):
        yield f"{address}?token={SECRET}", got, status


def flow_of(name, *attempts):
    """A flow around a job whose attempts end as given: an error, or well; retried at once."""
    left = list(attempts)

    def run(config):
        if isinstance(end := left.pop(0), Exception):
            raise end
        return SimpleNamespace(lines=lambda: ["result    none"])

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


@pytest.fixture
def mlflow():
    """The address of a tracking server that has one experiment, sta, and the runs of a flow run, newest first."""
    runs = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            name = parse_qs(urlsplit(self.path).query)["experiment_name"]
            self.answer({"experiment": {"experiment_id": "7"}} if name == ["sta"] else None)

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert asked["experiment_ids"] == ["7"] and asked["order_by"] == ["attributes.start_time DESC"]
            assert asked["filter"] == "tags.`prefect.flow_run_id` = '0123'"
            self.answer({"runs": [{"info": {"run_id": run, "status": status}} for run, status in runs]})

        def answer(self, what):
            self.send_response(404 if what is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(what).encode())

    with web_servers.answering(Server) as address:
        yield address, runs


@pytest.mark.parametrize(
    ("runs", "linked"),
    [
        ([("new", "FINISHED"), ("bad", "FAILED"), ("older", "FAILED"), ("old", "FINISHED")], "bad"),
        ([("new", "FINISHED"), ("old", "FINISHED")], "new"),
        ([("new", "RUNNING"), ("old", "FINISHED")], "new"),
        ([], None),
    ],
)
@pytest.mark.parametrize("flow", ["recordings", "sta"])
def test_an_alert_has_the_page_of_the_run_that_failed(mlflow, flow, runs, linked):
    address, there = mlflow
    there += runs
    run = SimpleNamespace(id="0123", parameters={"config": {"tracking": {"uri": f"{address}/"}}})
    assert mlflow_url(run, flow) == (linked and f"{address}/#/experiments/7/runs/{linked}")
    assert mlflow_url(run, "pca") is None, "another experiment"


@pytest.mark.parametrize("uri", ["http://mlflow:fivethousand", "http://[mlflow"])
def test_an_alert_goes_without_a_page_where_the_address_of_mlflow_is_none(here, webhook, monkeypatch, uri):
    url, got, _ = webhook
    monkeypatch.setenv("LAZYPIPE_ALERT_WEBHOOK", url)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(lp.DataError):
        flow_of("no-page", lp.DataError("rows.npy: NaN"))()
    assert [(one["error"], one["mlflow_url"]) for one in got] == [("DataError: rows.npy: NaN", None)]
