"""The stages that every flow around a job has: check, compute, report."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import dask
from prefect import Task, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import Completed, State
from prefect.tasks import exponential_backoff

from flows._gpus import turn
from flows._observing import alone, followed
from jobs._config import Config, RunConfig
from jobs._run import Result, browse
from jobs._tables import markdown
from lazypipe.errors import EngineError, LazypipeError, RefusedError
from lazypipe.secrets import hidden
from lazypipe.sizes import show_bytes
from lazypipe.tracking import page_of

# Dask tells of each start and stop of a cluster, which would fill a run's log. Read when it is imported.
dask.config.set({"logging.distributed": "error"})

RETRIES = 3
RETRY_SECONDS = 10.0  # before the first retry, twice as long before each further one
JITTER = 0.5  # and up to so much longer, so that runs which failed together do not come back together
LONGEST_LINE = 300  # characters of a line of a flow's log

Made = TypeVar("Made")


async def engine_failed(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a stage failed for its cluster: then another try may help, else it never does.

    Nor does it where the cluster refused the work, unless it had failed before: then it may not be whole again yet.
    """
    try:
        await state.aresult()
    except RefusedError:
        return run.run_count > 1
    except EngineError:
        return True
    except BaseException:
        return False
    return False


TRIED_AGAIN: dict[str, Any] = {
    "retries": RETRIES,
    "retry_delay_seconds": exponential_backoff(RETRY_SECONDS),
    "retry_jitter_factor": JITTER,
    "retry_condition_fn": engine_failed,
    "cache_policy": NO_CACHE,
}


def stages(job: Any, config: RunConfig, table: Callable[[Result], list[str]]) -> Any:
    """Check, compute and report a job, whose module has ``plan(config)`` and ``run(config)``; its result.

    Where that is one that was there already, the flow ends after the check, and its state says so.
    """
    plan = check(job.plan, config)
    if isinstance(plan, Result):
        return unchanged(plan)
    with turn(plan, config):
        result = compute(job.run, config, plan.passes)
    if result.reused:  # another run has made it meanwhile
        return unchanged(result)
    report(result, plan.lines(), table(result))
    return result


@task(name="check", **TRIED_AGAIN)  # type: ignore[untyped-decorator]
def check(plan: Callable[[Any], Made], config: Config) -> Made:
    """Refuse what cannot work, before any data is read; the plan, or the result that is there, which the log tells.

    Tried again only where the engine failed.
    """
    with alone(), masked():
        planned: Any = plan(config)
    tell(planned.lines())
    for note in getattr(planned, "notes", ()):
        if note.startswith("no worker with a GPU"):
            get_run_logger().warning(note)
    return planned


@task(name="compute", **TRIED_AGAIN)  # type: ignore[untyped-decorator]
def compute(run: Callable[[Any], Made], config: Config, passes: int | None = None) -> Made:
    """The job itself, on its engine; tried again only where the engine failed."""
    with followed(run.__module__.rpartition(".")[2], passes), masked():
        result: Any = run(config)
    tell(result.lines())
    for warning in getattr(result, "figures", {}).get("warnings", ()):
        get_run_logger().warning(_short(hidden(warning)))
    return result


@task(name="report", cache_policy=NO_CACHE)  # type: ignore[untyped-decorator]
def report(result: Result, plan: list[str], table: list[str]) -> None:
    """A markdown artifact: the result table, the figures of the run, and where to find it in MLflow, also as a link."""
    create_markdown_artifact(
        markdown=hidden("\n".join([*table, "", *summary(result), "", "```text", *plan, "```"])),
        key=f"{result.job}-result",
        description=hidden(f"{result.job} of {result.figures['source']['uri']}"),
    )
    if url := mlflow_url(result):
        create_link_artifact(link=url, link_text=f"MLflow run {result.run_id}", key=f"{result.job}-mlflow")


def unchanged(result: Result) -> State[Result]:
    """How a flow ends that had nothing to do, as nothing has changed."""
    message = hidden(f"same data, config and code as {result.out}: nothing to do")
    get_run_logger().info("unchanged: %s", message)
    return Completed(name="Unchanged", message=message, data=result)


def tell(lines: Sequence[str]) -> None:
    """Lines in the run's log, none too long."""
    get_run_logger().info("\n".join(_short(hidden(line)) for line in lines))


def _short(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 4]} ..."


@contextmanager
def masked() -> Iterator[None]:
    """Let no error out that holds a secret: it would stand in the log and in the run's state."""
    try:
        yield
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        if hidden(text) == text:
            raise
        kind = type(error) if isinstance(error, LazypipeError) else RuntimeError
        name = "" if isinstance(error, LazypipeError) else f"{type(error).__name__}: "
        raise kind(name + hidden(str(error))) from None


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
        f"- result: `{_place(result)}`",
    ]
    if result.run_id:
        url = mlflow_url(result)
        run = f"[{result.run_id}]({url})" if url else f"`{result.run_id}`"
        lines.append(f"- MLflow run: {run}; open with `{browse(result.tracking_uri)}`")
    return lines


def mlflow_url(result: Result) -> str | None:
    """The page of the MLflow run, where a server has one."""
    if not result.run_id:
        return None
    return page_of(result.tracking_uri, result.figures["mlflow"]["experiment_id"], result.run_id)


def _place(result: Result) -> str:
    """An address as it is, a path from the root on."""
    return str(result.out) if "://" in str(result.out) else str(result.out.absolute())
