"""Runs whose process vanished, with its machine or by SIGKILL: an automation of the Prefect server marks them crashed.

A run's process sends a heartbeat every ``PREFECT_FLOWS_HEARTBEAT_FREQUENCY`` seconds (180 unless set, 30 at least).
Where three are missing it is gone, or cut off: its state becomes Crashed, which frees its place in a concurrency limit.
"""

from __future__ import annotations

import os
from typing import Any

from flows.stack.reachable import login
from flows.stack.web import ask, ask_json

NAME = "lazypipe: runs that vanished"
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDED = tuple(f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed", "Unchanged"))
MISSING = 3  # heartbeats
SECONDS = 180
SHORTEST = 30


def heartbeat_seconds() -> int:
    """Seconds between two heartbeats of a run: ``PREFECT_FLOWS_HEARTBEAT_FREQUENCY``, which its process reads, too."""
    given = os.environ.get("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "")
    return max(SHORTEST, int(given)) if given.isdigit() else SECONDS


def make_automation(api: str) -> None:
    """Make it, or bring the one that is there up to date. Raises OSError where the server does not take it."""
    wanted = automation()
    for one in ask_json(f"{api}/automations/filter", {"automations": {"name": {"any_": [NAME]}}}, login()):
        if one["trigger"].get("within") == wanted["trigger"]["within"] and one["enabled"]:
            return
        ask(f"{api}/automations/{one['id']}", headers=login(), method="DELETE")
    ask_json(f"{api}/automations/", wanted, login())


def automation() -> dict[str, Any]:
    """What Prefect is asked to do: mark a run crashed after whose heartbeat for so long no other came, nor its end."""
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
