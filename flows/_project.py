"""``prefect.yaml``, checked before Prefect sees it: every fault is a line that names deployment and field."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Mapping
from contextlib import chdir
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from zoneinfo import available_timezones

from prefect.client.schemas.schedules import CronSchedule, RRuleSchedule
from prefect.flows import Flow, load_flow_from_entrypoint
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from jobs._config import read_yaml
from jobs._messages import some
from jobs.recordings import RecordingsConfig, state_of
from lazypipe.checks import nearest
from lazypipe.errors import ConfigError
from lazypipe.stores import as_given, is_remote


class _Strict(BaseModel):
    """Prefect itself passes over names that it does not know."""

    model_config = ConfigDict(extra="forbid")


class Schedule(_Strict):
    """When a deployment runs: by exactly one of cron, interval and rrule."""

    cron: str | None = None
    interval: timedelta | None = Field(None, gt=timedelta(0))
    rrule: str | None = None
    timezone: str | None = None
    anchor_date: str | None = None
    day_or: bool | None = None
    active: bool | None = None
    parameters: dict[str, Any] = {}
    slug: str | None = None
    replaces: str | None = None


class Concurrency(_Strict):
    """How many runs of a deployment go on at once, and what becomes of the next."""

    limit: int = Field(ge=1)
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"
    grace_period_seconds: int | None = None


def _as_limit(value: Any) -> Any:
    """A number alone is the limit."""
    return {"limit": value} if isinstance(value, int) else value


class Pool(_Strict):
    """Who carries runs out."""

    name: str
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = {}


class Deployment(_Strict):
    """A flow, its parameters and its schedules."""

    name: str = Field(min_length=1)
    entrypoint: str
    work_pool: Pool
    parameters: dict[str, Any] = {}
    schedules: list[Schedule] = []
    schedule: Schedule | None = None
    concurrency_limit: Annotated[Concurrency | None, BeforeValidator(_as_limit)] = None
    description: str | None = None
    tags: list[str] | str | None = None
    paused: bool | None = None
    version: str | None = None
    version_type: str | None = None
    flow_name: str | None = None
    enforce_parameter_schema: bool | None = None
    build: Any = None
    push: Any = None
    pull: Any = None
    triggers: list[dict[str, Any]] | None = None
    sla: Any = None

    def all_schedules(self) -> list[tuple[str, Schedule]]:
        """Each with the name of its field."""
        given = [(f"schedules[{i}]", one) for i, one in enumerate(self.schedules)]
        return given if self.schedule is None else [("schedule", self.schedule), *given]


NAMES = ("prefect-version", "name", "build", "push", "pull", "definitions", "deployments")


class Checked(NamedTuple):
    """What a file says, as far as it can be understood, and its faults, a line each."""

    deployments: list[Deployment]
    faults: list[str]


def checked(path: Path) -> Checked:
    """The deployments of a file. Raises ConfigError where it cannot be read, or is no YAML."""
    values = read_yaml(path)
    faults = [f"{path}: {name}: unknown name{nearest(name, NAMES)}" for name in values if name not in NAMES]
    given = values.get("deployments") or []
    if not isinstance(given, list) or not given:
        return Checked([], [*faults, f"{path}: deployments: is no list of deployments. Write '- name: ...' below it"])
    found: list[Deployment] = []
    names: set[str] = set()
    owners: dict[str, str] = {}  # of state folders
    for i, value in enumerate(given):
        name = value.get("name") if isinstance(value, Mapping) else None
        where = f"{path}: {name or f'deployments[{i}]'}"
        try:
            deployment = Deployment.model_validate(value)
        except ValidationError as error:
            faults += [f"{where}: {line}" for line in lines(error, Deployment)]
            continue
        found.append(deployment)
        mine = [line for field, one in deployment.all_schedules() for line in _of_schedule(field, one)]
        mine += _twice(deployment)
        mine += _of_flow(deployment, path.parent, names, owners)
        faults += [f"{where}: {line}" for line in mine]
    return Checked(found, faults)


def lines(error: ValidationError, kind: Any, place: str = "") -> Iterator[str]:
    """Each fault as ``field: what is wrong``; ``kind`` is the type that was asked for, ``place`` where it stands."""
    for item in error.errors(include_url=False):
        loc = [str(part) for part in item["loc"]]
        below = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in loc)
        name = f"{place}{below}".removeprefix(".")
        if item["type"] == "missing":
            yield f"{name}: is missing"
        elif item["type"] == "extra_forbidden":
            known = _names(kind, loc[:-1])
            yield f"{name}: unknown name{nearest(loc[-1], known) or some(known)}"
        else:
            said = str(item["ctx"]["error"]) if item["type"] == "value_error" else item["msg"]
            yield f"{name}: {said[:1].lower()}{said[1:].rstrip('.')}"


def _names(kind: Any, loc: list[str]) -> list[str]:
    """Of the fields of the model at ``loc``, also in a list or where None is allowed, too."""
    model = _model_of(kind)
    for part in loc:
        if model is not None and part in model.model_fields:
            model = _model_of(model.model_fields[part].annotation) or model
    return list(model.model_fields) if model else []


def _model_of(annotation: Any) -> type[BaseModel] | None:
    models = [kind for kind in _kinds(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return models[-1] if models else None


def _kinds(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in typing.get_args(annotation):
        yield from _kinds(part)


def _of_schedule(field: str, schedule: Schedule) -> Iterator[str]:
    given = [name for name in ("cron", "interval", "rrule") if getattr(schedule, name) is not None]
    if len(given) != 1:
        yield f"{field}: needs one of cron, interval and rrule, has {' and '.join(given) or 'none'}"
    zones = available_timezones()
    if schedule.timezone is not None and schedule.timezone not in zones:
        yield f"{field}.timezone: no time zone {schedule.timezone!r}{nearest(schedule.timezone, zones)}"
    for name, kind in (("cron", CronSchedule), ("rrule", RRuleSchedule)):
        text = getattr(schedule, name)
        if text is not None:
            try:
                kind.model_validate({name: text})
            except ValidationError as error:
                said = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
                hint = ". Write minute, hour, day, month and weekday, such as '0 2 * * *'" if name == "cron" else ""
                yield f"{field}.{name}: {text!r} does not parse: {said.rstrip('.')}{hint}"
    if schedule.anchor_date is not None:
        try:
            datetime.fromisoformat(schedule.anchor_date)
        except ValueError:
            yield f"{field}.anchor_date: {schedule.anchor_date!r} is no date. Write it as 2026-01-31T02:00:00"


def _twice(deployment: Deployment) -> Iterator[str]:
    """Schedules that Prefect would take for one."""
    seen = set()
    for field, schedule in deployment.all_schedules():
        when = schedule.model_dump_json(exclude={"slug", "active"})
        if when in seen:
            yield f"{field}: is there twice"
        seen.add(when)


def _of_flow(deployment: Deployment, folder: Path, names: set[str], owners: dict[str, str]) -> Iterator[str]:
    """What does not fit the flow; ``names`` and ``owners`` are those of the deployments before, and get this one's."""
    try:
        flow = _flow(deployment.entrypoint, folder)
    except ConfigError as error:
        yield f"entrypoint: {error}"
        return
    name = f"{flow.name}/{deployment.name}"  # what Prefect knows it by
    if name in names:
        yield f"name: there are two deployments {name}. Give one another name"
    names.add(name)
    yield from _missing(deployment, inspect.signature(flow.fn).parameters)
    yield from _of_values("parameters", deployment.parameters, flow, folder, name, owners)
    for field, schedule in deployment.all_schedules():
        for line in _of_values(f"{field}.parameters", schedule.parameters, flow, folder, name, owners):
            why = ": a schedule's parameter takes the place of all of the deployment's"
            yield line + why * line.endswith(": is missing")


def _missing(deployment: Deployment, wanted: Mapping[str, inspect.Parameter]) -> Iterator[str]:
    """Parameters that a run would lack: those of its schedule come on top of the deployment's."""
    schedules = deployment.all_schedules()
    for name, parameter in wanted.items():
        if parameter.default is not parameter.empty or name in deployment.parameters:
            continue
        lacking = [field for field, schedule in schedules if name not in schedule.parameters]
        for place in [f"{field}." for field in lacking] if len(lacking) < len(schedules) else [""]:
            yield f"{place}parameters.{name}: is missing"


def _of_values(
    place: str, values: Mapping[str, Any], flow: Flow[..., Any], folder: Path, owner: str, owners: dict[str, str]
) -> Iterator[str]:
    """Parameters that the flow does not know, or not with such a value, and states of another deployment."""
    wanted, hints = inspect.signature(flow.fn).parameters, typing.get_type_hints(flow.fn)
    for name, value in values.items():
        if name not in wanted:
            yield f"{place}.{name}: unknown parameter{nearest(name, wanted) or some(wanted)}"
            continue
        kind = hints.get(name, Any)
        try:
            config = TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            yield from lines(error, kind, f"{place}.{name}")
        else:
            yield from _state_twice(config, f"{place}.{name}", folder, owner, owners)


def _state_twice(config: Any, field: str, folder: Path, owner: str, owners: dict[str, str]) -> Iterator[str]:
    """Two deployments with one state folder would take each other's for their own, or find it locked."""
    state = state_of(config) if isinstance(config, RecordingsConfig) else getattr(config, "state", None)
    if state is None or is_remote(state):
        return
    other = owners.setdefault(str(Path(folder, str(as_given(state))).resolve()), owner)
    if other != owner:
        yield f"{field}.state: {state} is the state folder of {other}, too. Give each deployment its own"


@cache
def _flow(entrypoint: str, folder: Path) -> Flow[..., Any]:
    """Raises ConfigError where the entrypoint names none."""
    file, colon, _ = entrypoint.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise ConfigError(f"{entrypoint!r} is not FILE.py:FLOW")
    if not (folder / file).is_file():
        raise ConfigError(f"{file}: no such file in {folder.absolute()}")
    try:
        with chdir(folder):
            return load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    except Exception as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{entrypoint!r}: {what[:200].rstrip('.')}") from error
