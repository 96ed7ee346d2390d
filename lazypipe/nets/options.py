"""How a network is trained, as callers say it: checked once, and the same for every kind of network."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from lazypipe.checks import above_0, from_0, named, whole
from lazypipe.errors import ConfigError
from lazypipe.nets.curvature import EXACT_LIMIT
from lazypipe.nets.device import DEVICES, MATMUL_PRECISIONS
from lazypipe.nets.learning import Course
from lazypipe.nets.network import PRECISIONS
from lazypipe.nets.optimizers import DEFAULT_RATES, OPTIMIZERS, Optimizer
from lazypipe.nets.parameters import Parameters
from lazypipe.nets.schedules import Schedule

KEEPS = ("best", "last")
WHERE = (  # how and where it is computed: may be others where a training goes on
    "device",
    "matmul_precision",
    "threads",
    "processes",
    "timeout",
    "checkpoint_steps",
)


@dataclass(frozen=True)
class Options:
    """Fields are as in ``MLP``, which says what they mean."""

    optimizer: str = "adam"
    learning_rate: float | None = None
    momentum: float = 0.9
    schedule: str = "constant"
    warmup: float = 0.0
    l2: float = 0.0
    clip_norm: float | None = None
    curvature: float = 0.01
    epochs: int = 20
    batch_size: int | None = 128
    patience: int | None = None
    keep: str = "best"
    divide_by: float = 1.0
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    matmul_precision: str = "highest"
    threads: int | None = None
    processes: int = 1
    timeout: float = 300.0
    checkpoint_steps: int | None = None

    def checked(self) -> Options:
        """The same as plain values; ConfigError for one that cannot be."""
        named("optimizer", self.optimizer, OPTIMIZERS)
        rate = DEFAULT_RATES[self.optimizer] if self.learning_rate is None else self.learning_rate
        Schedule(self.schedule, self.warmup)
        for name, known in (
            ("keep", KEEPS),
            ("device", DEVICES),
            ("precision", PRECISIONS),
            ("matmul_precision", MATMUL_PRECISIONS),
        ):
            named(name, getattr(self, name), dict.fromkeys(known))
        found: dict[str, Any] = {"learning_rate": above_0(rate, "learning_rate")}
        for name in ("epochs", "processes"):
            found[name] = whole(getattr(self, name), name)
        for name in ("batch_size", "patience", "threads", "checkpoint_steps"):
            value = getattr(self, name)
            found[name] = None if value is None else whole(value, name)
        found["seed"] = whole(self.seed, "seed", least=0)
        found["momentum"] = from_0(self.momentum, "momentum", below=1.0)
        for name in ("l2", "curvature"):
            found[name] = from_0(getattr(self, name), name)
        for name in ("divide_by", "timeout"):
            found[name] = above_0(getattr(self, name), name)
        found["clip_norm"] = None if self.clip_norm is None else above_0(self.clip_norm, "clip_norm")
        return replace(self, **found)

    @property
    def rate(self) -> float:
        assert self.learning_rate is not None, "checked options have one"
        return self.learning_rate

    def optimizer_of(self, parameters: Parameters) -> Optimizer:
        return Optimizer(self.optimizer, parameters, momentum=self.momentum)

    def require_validation(self, validated: bool) -> None:
        """Raise ConfigError where patience is asked for and nothing is ``validated``."""
        if self.patience is not None and not validated:
            raise ConfigError("patience: there are no validation rows to be patient about. Give some, or leave it out.")

    def course(self, n_parameters: int, judged_by: str | None, higher_is_better: bool) -> Course:
        """``judged_by`` chooses the best epoch; None where there is nothing to judge by."""
        self.require_validation(judged_by is not None)
        return Course(
            epochs=self.epochs,
            rate=self.rate,
            schedule=Schedule(self.schedule, self.warmup),
            l2=self.l2,
            clip_norm=self.clip_norm,
            patience=self.patience,
            judged_by=judged_by,
            higher_is_better=higher_is_better,
            curvature=self.curvature if self.optimizer == "curvature" else 0.0,
            curvature_exact=n_parameters <= EXACT_LIMIT,
            checkpoint_steps=self.checkpoint_steps,
        )

    def identity(self) -> dict[str, Any]:
        """What changes the result. Where steps do not depend on the number of epochs, more of them may be asked for."""
        found = {name: value for name, value in asdict(self).items() if name not in WHERE}
        if self.schedule == "constant" and not self.warmup:
            del found["epochs"]
        if self.optimizer != "curvature":
            del found["curvature"]
        return found


def options_of(values: dict[str, Any]) -> Options:
    """The options among ``values``, checked."""
    return Options(**{field.name: values[field.name] for field in fields(Options) if field.name in values}).checked()
