"""Alerts: what failed, in one line with its links, to a webhook, to a command, or to both.

``LAZYPIPE_ALERT_WEBHOOK`` is an address that gets the JSON as a POST; ``LAZYPIPE_ALERT_COMMAND`` is a command line,
run without a shell, that gets it on stdin. A flow's hooks call ``alert`` once its last try has failed.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
from prefect.logging.loggers import flow_run_logger
from prefect.utilities.urls import url_for

from lazypipe.secrets import hidden
from lazypipe.tracking import page_of

WEBHOOK, COMMAND = "LAZYPIPE_ALERT_WEBHOOK", "LAZYPIPE_ALERT_COMMAND"
SECONDS = 10.0
LONGEST = 500  # characters of the error
PREFIX = "Flow run encountered an exception: "
EXPERIMENTS = {"recordings": "sta"}  # of flows whose runs are those of another job
LOOKED_AT = 200  # runs of a flow run


def alert(flow: Any, flow_run: Any, state: Any) -> None:
    """Tell that a run failed or crashed; what goes wrong meanwhile is logged in a line, and fails nothing.

    A worker whose run was killed calls it by these names.
    """
    webhook, command = os.environ.get(WEBHOOK), os.environ.get(COMMAND)
    if not webhook and not command:
        return
    text = json.dumps(message(flow.name, flow_run, state))
    for send, place, name in ((post, webhook, WEBHOOK), (call, command, COMMAND)):
        if place:
            try:
                send(place, text)
            except Exception as error:
                what = hidden(" ".join(str(error).split()).replace(place, f"${name}"))[:200]
                flow_run_logger(flow_run, flow).warning(
                    f"alert: ${name}: {type(error).__name__}: {what}. It was not sent."
                )


def message(flow: str, run: Any, state: Any) -> dict[str, str | None]:
    """What an alert says; no secret is in it."""
    error = " ".join((state.message or "").removeprefix(PREFIX).split())
    said = {
        "flow": flow,
        "run": run.name,
        "state": state.name,
        "error": error if len(error) <= LONGEST else error[: LONGEST - 4] + " ...",
        "prefect_url": url_for("flow-run", obj_id=run.id),
        "mlflow_url": mlflow_url(run, flow),
        "host": socket.gethostname(),
    }
    return {name: value if value is None else hidden(str(value)) for name, value in said.items()}


def post(webhook: str, text: str) -> None:
    """POST the JSON; anything but success is an error."""
    if urlsplit(webhook).scheme not in ("http", "https"):
        raise ValueError("is no http or https address")
    answer = httpx.post(webhook, content=text, headers={"Content-Type": "application/json"}, timeout=SECONDS)
    if not answer.is_success:
        raise OSError(f"it answered {answer.status_code}")


def call(command: str, text: str) -> None:
    """Run the command, and give it the JSON, a line."""
    words = shlex.split(command)
    try:
        done = subprocess.run(words, input=f"{text}\n", capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise OSError(f"it did not end within {SECONDS:.0f} s") from None  # its own message holds the command
    if done.returncode:
        raise OSError(f"it ended with {done.returncode}: {done.stderr.strip()}")


def mlflow_url(run: Any, flow: str) -> str | None:
    """The page of the MLflow run of a flow run, where a tracking server has one.

    Of several, as a flow of recordings has, that of the last one which did not finish, else of the last one.
    """
    config = (run.parameters or {}).get("config")
    config = config if isinstance(config, Mapping) else getattr(config, "model_dump", dict)()
    tracking = config.get("tracking") or {}
    uri = tracking.get("uri") or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if not uri.startswith(("http://", "https://")) or tracking.get("enabled") is False:
        return None
    name, password = (os.environ.get(f"MLFLOW_TRACKING_{what}") for what in ("USERNAME", "PASSWORD"))
    uri, auth = uri.rstrip("/"), (name, password) if name and password else None
    api = f"{uri}/api/2.0/mlflow"
    try:
        with httpx.Client(timeout=SECONDS / 2, auth=auth) as client:
            wanted = {"experiment_name": tracking.get("experiment") or EXPERIMENTS.get(flow, flow)}
            experiment = client.get(f"{api}/experiments/get-by-name", params=wanted).raise_for_status().json()
            number = experiment["experiment"]["experiment_id"]
            query = {
                "experiment_ids": [number],
                "filter": f"tags.`prefect.flow_run_id` = '{run.id}'",
                "order_by": ["attributes.start_time DESC"],
                "max_results": LOOKED_AT,
            }
            found = client.post(f"{api}/runs/search", json=query).raise_for_status().json().get("runs", [])
            runs = sorted((one["info"] for one in found), key=lambda info: info["status"] == "FINISHED")
    except Exception:  # an address that is none, a server that is not MLflow: the alert goes without a link
        return None
    return page_of(uri, number, runs[0]["run_id"]) if runs else None
