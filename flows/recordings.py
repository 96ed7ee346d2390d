"""New recordings of a folder as a flow: check, compute, report."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from flows._alerts import alert
from flows._naming import named
from flows._stages import check, compute
from jobs import recordings as job
from jobs._tables import markdown
from jobs.recordings import Taken
from lazypipe.errors import DataError
from lazypipe.secrets import hidden

SHOWN = 200  # recordings in the report, those that are waited for or failed first


@flow(name="recordings", on_failure=[alert], on_crashed=[alert], flow_run_name=named)  # type: ignore[untyped-decorator]
def recordings(config: job.RecordingsConfig) -> Any:
    """Averages of every new recording of a folder around its spikes, each taken once, with a report of all of them.

    Fails, once all others are done, where a recording failed in this run.
    """
    check(job.plan, config)
    taken = compute(job.run, config)
    report(taken, config.folder)
    if taken.failed:
        raise DataError(hidden(taken.failure()))
    if not taken.new:
        message = hidden(f"no new recording in {config.folder}: nothing to do")
        get_run_logger().info("unchanged: %s", message)
        return Completed(name="Unchanged", message=message, data=taken)
    return taken


@task(name="report", cache_policy=NO_CACHE)  # type: ignore[untyped-decorator]
def report(taken: Taken, folder: str) -> None:
    """A markdown artifact: a line a recording."""
    text, of = hidden("\n".join(table(taken))), hidden(f"recordings of {folder}")
    create_markdown_artifact(markdown=text, key="recordings-result", description=of)


def table(taken: Taken) -> list[str]:
    """What became of each recording as a markdown table, and how many there are of each status."""
    rows = sorted(taken.rows, key=lambda row: row.status == "taken")
    lines = markdown([job.HEAD, *map(_cells, rows[:SHOWN])], ("---", "--:", "---", "---"))
    more = [f"{len(rows) - SHOWN:,} more that were taken before are not shown."] if len(rows) > SHOWN else []
    return [*taken.lines(), "", *lines, "", *more]


def _cells(row: job.Row) -> tuple[str, ...]:
    name, size, status, what = row.cells()
    return f"`{name}`", size, status, what.replace("|", "\\|")
