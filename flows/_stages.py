"""The stages that every flow around a job has: check, compute, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dask
from prefect import Task, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import State

from jobs._config import RunConfig
from jobs._run import Result, browse
from jobs._tables import markdown
from lazypipe.errors import EngineError
from lazypipe.plan import Plan
from lazypipe.sizes import show_bytes

# Dask tells of each start and stop of a cluster, which would fill a run's log. Read when it is imported.
dask.config.set({"logging.distributed": "error"})

RETRY_SECONDS = [10.0, 60.0]


async def engine_failed(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a stage failed for its cluster: then another try may help, else it never does."""
    try:
        await state.aresult()
    except EngineError:
        return True
    except BaseException:
        return False
    return False


@task(name="check", cache_policy=NO_CACHE)
def check(plan: Callable[[Any], Plan], config: RunConfig) -> list[str]:
    """Refuse what cannot work, before any data is read; the lines of the plan."""
    lines = plan(config).lines()
    get_run_logger().info("\n".join(lines))
    return lines


@task(
    name="compute",
    retries=len(RETRY_SECONDS),
    retry_delay_seconds=RETRY_SECONDS,
    retry_condition_fn=engine_failed,
    cache_policy=NO_CACHE,
)
def compute(run: Callable[[Any], Result], config: RunConfig) -> Result:
    """The job itself, on its engine; tried again only where the engine failed."""
    result = run(config)
    get_run_logger().info("\n".join(result.lines()))
    return result


@task(name="report", cache_policy=NO_CACHE)
def report(result: Result, plan: list[str], table: list[str]) -> None:
    """A markdown artifact: the result table, the figures of the run, and where to find it in MLflow."""
    create_markdown_artifact(
        markdown="\n".join([*table, "", *summary(result), "", "```text", *plan, "```"]),
        key=f"{result.job}-result",
        description=f"{result.job} of {result.figures['source']['uri']}",
    )


def training(said: Mapping[str, str], epochs: Sequence[Sequence[str]], warnings: Sequence[str]) -> list[str]:
    """What a training came to, its epochs as a markdown table, and what there is to mind."""
    told = [f"- {name}: {text}" for name, text in said.items()]
    return [*told, "", *markdown(epochs), "", *[f"- warning: {warning}" for warning in warnings]]


def summary(result: Result) -> list[str]:
    """What any job's run took, as markdown list items."""
    figures = result.figures
    shape = " × ".join(f"{n:,}" for n in figures["source"]["shape"])
    lines = [
        f"- source: `{figures['source']['uri']}`, {shape} {figures['source']['dtype']}",
        f"- passes: {figures['passes']}, {figures['seconds']:.1f} s",
        f"- peak memory: {show_bytes(figures['peak_memory_bytes'])}, "
        f"planned {show_bytes(figures['plan']['peak_bytes'])}",
        f"- result: `{result.out.absolute()}`",
    ]
    if result.run_id:
        uri, experiment = result.tracking_uri, figures["mlflow"]["experiment_id"]
        run = f"`{result.run_id}`"
        if uri.startswith("http"):
            run = f"[{result.run_id}]({uri.rstrip('/')}/#/experiments/{experiment}/runs/{result.run_id})"
        lines.append(f"- MLflow run: {run}; open with `{browse(uri)}`")
    return lines
