"""Runs whose process vanished, with its machine or by SIGKILL: an automation of the Prefect server marks them crashed.

A run's process sends a heartbeat every ``PREFECT_FLOWS_HEARTBEAT_FREQUENCY`` seconds (180 unless set, 30 at least).
Where three are missing it is gone, or cut off: its state becomes Crashed, which frees its place in a concurrency limit.
"""

from __future__ import annotations

import os
from typing import Any

import httpx

from flows.stack.reachable import login

NAME = "lazypipe: runs that vanished"
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDED = tuple(f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed", "Unchanged"))
MISSING = 3  # heartbeats
SECONDS = 180
SHORTEST = 30
SECONDS_TO_ANSWER = 10.0


def heartbeat_seconds() -> int:
    """Between two, as the server's processes are told, too."""
    given = os.environ.get("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "")
    return max(SHORTEST, int(given)) if given.isdigit() else SECONDS


def make_automation(api: str) -> None:
    """Make it, or bring the one that is there up to date. Raises OSError where the server does not take it."""
    wanted = automation()
    try:
        with httpx.Client(base_url=api, headers=login(), timeout=SECONDS_TO_ANSWER) as client:
            asked = {"automations": {"name": {"any_": [NAME]}}}
            for one in client.post("/automations/filter", json=asked).raise_for_status().json():
                if one["trigger"].get("within") == wanted["trigger"]["within"] and one["enabled"]:
                    return
                client.delete(f"/automations/{one['id']}").raise_for_status()
            client.post("/automations/", json=wanted).raise_for_status()
    except httpx.HTTPError as error:
        raise OSError(f"it does not take the automation: {error}") from error


def automation() -> dict[str, Any]:
    """A heartbeat after which, for so long, neither another came nor the run ended."""
    return {
        "name": NAME,
        "description": f"A run whose process has sent no heartbeat for {MISSING} times its interval is marked crashed",
        "enabled": True,
        "trigger": {
            "type": "event",
            "posture": "Proactive",
            "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
            "for_each": ["prefect.resource.id"],
            "after": [HEARTBEAT],
            "expect": [HEARTBEAT, *ENDED],
            "threshold": 1,
            "within": MISSING * heartbeat_seconds(),
        },
        "actions": [
            {
                "type": "change-flow-run-state",
                "state": "CRASHED",
                "name": "Crashed",
                "message": "Its process has not been heard of: it, or its machine, is gone. The next run goes on from "
                "its state.",
            }
        ],
    }
