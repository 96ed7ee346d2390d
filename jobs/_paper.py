"""How a job is planned, also for workers and data that are not there: the options of that, and the tables it prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import numpy as np
from pydantic import BeforeValidator, Field, create_model

import lazypipe as lp
from jobs._config import Config
from jobs._messages import option
from jobs._tables import aligned
from jobs._values import numbers
from lazypipe.engines import resident
from lazypipe.engines.base import DEFAULT_MEMORY, Engine, checked_budget
from lazypipe.io.on_paper import matrix_on_paper
from lazypipe.plan import Plan
from lazypipe.scaling import Machine, OnPaper, Prediction, Seconds, predict, where_it_stops
from lazypipe.scaling.words import show_seconds
from lazypipe.sizes import show_bytes

SHOWN = (1, 10, 100)  # workers in the tables, beside those asked for
UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
MANUAL = "docs/scale.md"


def _seconds(value: Any) -> Any:
    """``100h`` as 360,000."""
    if value is None:
        return None
    text = str(value).replace(" ", "")
    number = text.rstrip("smindh")
    try:
        return float(number) * UNITS[text[len(number) :] or "s"]
    except (ValueError, KeyError):
        raise ValueError(f"{value!r} is no duration. Write it as 3600, 90min, 100h or 7d") from None


def _rates() -> type[Config]:
    """A config with one field for each rate of lazypipe.scaling.Machine."""
    rates: dict[str, Any] = {}
    for name, (rate, told) in Machine.descriptions().items():
        least = Field(ge=0) if name in Machine.COSTS else Field(gt=0)
        rates[name] = Annotated[float, least], Field(rate, description=told)
    return create_model("Rates", __base__=Config, **rates)


if TYPE_CHECKING:
    Rates = Config  # mypy takes no class that is made by a call for a base
else:
    Rates = _rates()


class RatesConfig(Rates):
    __doc__ = f"What a prediction counts with, and where that comes from; {MANUAL} tells how."


class PaperConfig(Config):
    """What a plan can be told of workers that are not there."""

    workers: int | None = Field(
        None, ge=1, description="also predict time and memory on 1, 10, 100 and so many workers, of one core each"
    )
    machine: RatesConfig = Field(RatesConfig(), description="what a prediction counts with")


class MatrixOnPaper(PaperConfig):
    """A matrix that is not there."""

    shape: Annotated[tuple[int, int] | None, BeforeValidator(numbers)] = Field(
        None, description="in place of a source: plan for a matrix of so many rows and columns"
    )
    dtype: str = Field("float32", description="with shape: type of its values")
    layout: Literal["rows", "panels"] = Field(
        "rows", description="with shape: how it lies on disk, as a .npy file or as the .zarr panels of convert"
    )


class RecordingOnPaper(PaperConfig):
    """A recording that is not there."""

    duration: Annotated[float | None, BeforeValidator(_seconds)] = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="in place of source and spikes: plan for a recording of so long (3600, 90min, 100h) of n_channels "
        "at sampling_rate, of int16 unless dtype says another",
    )
    n_units: int = Field(100, ge=1, description="with duration: units (neurons) that fire")
    firing_rate: float = Field(5.0, ge=0, allow_inf_nan=False, description="with duration: spikes a second of each")


Make = Callable[[Engine], Plan]


def _matrix(job: Any, config: Any, asked: Any, budget: int) -> Make:
    try:
        np.dtype(asked.dtype)
    except TypeError:
        raise lp.ConfigError(f"--dtype: {asked.dtype!r} is no type of numbers. Write it as float32 or int8.") from None
    matrix = matrix_on_paper(asked.shape, asked.dtype, asked.layout, budget)
    work = job.work_of(config)
    return lambda engine: cast(Plan, work.plan(matrix, engine))


def _recording(job: Any, config: Any, asked: Any, budget: int) -> Make:
    from lazypipe.models.spike_triggered.average import plan_question
    from lazypipe.models.spike_triggered.on_paper import question_on_paper

    for name in ("n_channels", "sampling_rate"):
        if getattr(config, name) is None:
            raise lp.ConfigError(f"{option(name)}: is missing; a recording of a duration has to have one.")
    question = question_on_paper(
        round(asked.duration * config.sampling_rate), config.n_channels, config.dtype or "int16",
        config.sampling_rate, config.window, asked.n_units, round(asked.firing_rate * asked.duration),
        config.window_unit, config.edges, config.nan,
    )  # fmt: skip
    options = {name: getattr(config, name) for name in ("spread", "ddof", "chunk_length", "state")}
    options |= {"dtype": config.result_dtype, "out": config.arrays}
    return lambda engine: plan_question(question, engine, **options)


@dataclass(frozen=True)
class StandIn:
    """What may take the place of data: an option of ``options``, in place of the fields of ``data``.

    ``make`` (the job's module, its config, what was asked, the budget in bytes) gives what plans it for an engine.
    """

    options: type[PaperConfig]
    data: tuple[str, ...]
    make: Callable[[Any, Any, Any, int], Make]


STAND_INS = {
    "shape": StandIn(MatrixOnPaper, ("source",), _matrix),
    "duration": StandIn(RecordingOnPaper, ("source", "spikes"), _recording),
}


@dataclass(frozen=True)
class Paper:
    """How a job is planned: for data that are there and, with a ``stand_in``, for data and workers that are not.

    The module of the job is not imported before one of the properties, or ``lines``, is asked for.
    """

    job: str
    config_name: str  # of the class in its module
    stand_in: str | None = None  # the option that takes the place of data; None: its time has no model

    @property
    def module(self) -> Any:
        return import_module(f"jobs.{self.job}")

    @property
    def config(self) -> type[Config]:
        return cast(type[Config], getattr(self.module, self.config_name))

    @property
    def model(self) -> type[Config]:
        """The config of the job and the options of its stand-in; fields that name data may then be left out."""
        config = self.config
        if self.stand_in is None:
            return config
        found = STAND_INS[self.stand_in]
        optional: dict[str, Any] = {}
        for name in found.data:
            field = config.model_fields[name]
            told = f"{field.description} (or {option(self.stand_in)})"
            kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
            optional[name] = kind | None, Field(None, description=told)
        bases = (found.options, config)
        model = create_model(f"{config.__name__}OnPaper", __base__=bases, __doc__=config.__doc__, **optional)
        return cast(type[Config], model)

    def lines(self, asked: Any) -> list[str]:
        """The plan of ``asked``, a config of ``model``; with workers also what it takes on them."""
        if self.stand_in is None:
            return list(self.module.plan(asked).lines())
        stand_in, on_paper = STAND_INS[self.stand_in], getattr(asked, self.stand_in) is not None
        _require_one(asked, self.stand_in, on_paper)
        kind = self.config
        config: Any = kind.model_construct(**{name: getattr(asked, name) for name in kind.model_fields})
        if on_paper:
            budget = DEFAULT_MEMORY if config.engine.memory is None else checked_budget(config.engine.memory)
            planned = _planned(stand_in.make(self.module, config, asked, budget), budget)
            lines = planned(asked.workers or 1).lines()
        else:
            found = self.module.plan(config)
            lines = found.lines()
            if asked.workers is None or not isinstance(found, Plan):  # a result that is there already
                return list(lines)
            work = self.module.work_of(config)
            data = work.opened(config)
            planned = _planned(lambda engine: cast(Plan, work.plan(data, engine)), found.host.memory)
        if asked.workers is None:
            return list(lines)
        machine = Machine(**asked.machine.model_dump())
        return [*lines, "", *scaling_lines(planned, machine, asked.workers)]


def _require_one(asked: Any, stand_in: str, on_paper: bool) -> None:
    """ConfigError unless either data are named or what stands in for them."""
    fields_of_data = STAND_INS[stand_in].data
    missing = [name for name in fields_of_data if getattr(asked, name) is None]
    named = [name for name in fields_of_data if name not in missing]
    if on_paper and named:
        raise lp.ConfigError(
            f"{option(stand_in)}: together with {option(named[0])}, of which the data are read. Give one of the two."
        )
    if not on_paper and missing:
        raise lp.ConfigError(
            f"{option(missing[0])}: is missing; pass it, or {option(stand_in)} to plan for data that are not there."
        )


def _planned(make: Make, budget: int) -> Callable[[int], Plan]:
    """The plan for so many workers: one for all, unless it asked how many there are."""
    base = resident.base_nbytes(1)

    @lru_cache
    def plan(workers: int) -> Plan:
        return make(cast(Engine, OnPaper(workers, budget, base)))

    first = OnPaper(1, budget, base)
    same = make(cast(Engine, first))
    return plan if first.asked else lambda workers: same


def scaling_lines(planned: Callable[[int], Plan], machine: Machine, workers: int) -> list[str]:
    """Tables of time, and of bytes and memory, on 1, 10, 100 and ``workers``; and where more stop to help."""
    found = [predict(planned(n), machine, n) for n in sorted({*SHOWN, workers})]
    stop = where_it_stops(lambda n: predict(planned(n), machine, n))
    if stop is None:
        told = "not below a million workers"
    else:
        told = f"{stop.workers:,} workers: twice as many would be {stop.gain:.2f} x as fast, for {stop.reason}"
    return [*aligned(time_table(found)), "", *aligned(bytes_table(found)), "", f"scales    until {told}",
            f"model     predicted, not measured: {MANUAL} tells how; --machine.NAME changes a rate"]  # fmt: skip


def time_table(found: Sequence[Prediction]) -> list[tuple[str, ...]]:
    """A head, and a row a number of workers: seconds in all, by part, and the part that takes most."""
    parts = [part.name for part in fields(Seconds) if part.name != "writing" or any(p.seconds.writing for p in found)]
    rows = [
        (
            f"{one.workers:,}",
            show_seconds(one.seconds.total),
            *(show_seconds(getattr(one.seconds, part)) for part in parts),
            one.limit,
        )
        for one in found
    ]
    return [("workers", "time", *parts, "limited by"), *rows]


def bytes_table(found: Sequence[Prediction]) -> list[tuple[str, ...]]:
    """A head, and a row a number of workers: what moves, and the memory of a worker and of the driver."""
    head = ("workers", "read", "by a worker", "reduced", "broadcast", "returned", "memory a worker", "driver")
    rows = [
        (
            f"{one.workers:,}",
            *map(show_bytes, (one.read_nbytes, one.busiest, one.reduced_nbytes, one.sent_nbytes, one.returned_nbytes)),
            *map(show_bytes, (one.worker_nbytes, one.driver_nbytes)),
        )
        for one in found
    ]
    return [head, *rows]
