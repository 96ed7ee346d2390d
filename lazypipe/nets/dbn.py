"""Deep belief networks, as people call them: a stack of Boltzmann machines, then backpropagation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lazypipe.engines import Engine, engine_or_own
from lazypipe.errors import ConfigError, require_fitted
from lazypipe.nets.applying import matched
from lazypipe.nets.belief import FitBelief
from lazypipe.nets.checkpoints import forget
from lazypipe.nets.fitting import Fit, fit_memory
from lazypipe.nets.layers import FitStack, FitStackResult, Machine, fit_stack_memory
from lazypipe.nets.mlp import MLP, network_note, rule_of_thumb
from lazypipe.nets.network import units_of
from lazypipe.nets.options import Options
from lazypipe.nets.placing import budget_of, carried_out, plan_training
from lazypipe.nets.rbm import RBM, learning_note, machine_of, machine_options, plan_stack, stack_work
from lazypipe.nets.stack import Stack, load_stack
from lazypipe.plan import Plan

SHARED = ("divide_by", "seed", "device", "precision", "matmul_precision", "threads", "processes", "timeout",
          "checkpoint_steps")  # fmt: skip
PARTS: dict[str, type[Any]] = {"pretraining": RBM, "fine_tuning": MLP}  # and whose options they take


class Pretrained:
    """What deep belief networks and autoencoders have in common: the stack that they start from.

    ``pretraining`` and ``fine_tuning`` are options of ``RBM`` and of ``MLP``, by name.
    """

    FINE_TUNING: ClassVar[dict[str, Any]] = {
        "optimizer": "momentum",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "schedule": "linear",
        "epochs": 30,
    }

    def __init__(
        self,
        hidden: Sequence[int] = (500, 500, 2000),
        *,
        pretraining: Mapping[str, Any] | None = None,
        fine_tuning: Mapping[str, Any] | None = None,
        divide_by: float = 1.0,
        seed: int = 0,
        device: str = "auto",
        precision: str = "float32",
        matmul_precision: str = "highest",
        threads: int | None = None,
        processes: int = 1,
        timeout: float = 300.0,
        checkpoint_steps: int | None = None,
    ):
        self.hidden, self.pretraining, self.fine_tuning = hidden, pretraining, fine_tuning
        self.divide_by, self.seed, self.device = divide_by, seed, device
        self.precision, self.matmul_precision, self.threads = precision, matmul_precision, threads
        self.processes, self.timeout, self.checkpoint_steps = processes, timeout, checkpoint_steps

    def pretrain(
        self,
        X: Any,
        *,
        stack: Stack | str | Path | None = None,
        validation: Any = None,
        engine: Engine | None = None,
        state: str | Path | None = None,
        restart: bool = False,
    ) -> Any:
        """Train the stack alone on the rows of X, which need no labels; ``stack_`` holds it, ``fit`` goes on with it.

        ``stack``: its layers stay, as far as they have the units asked for; those above are trained. ``validation``:
        other rows, judged after every epoch. The rest, and errors, are those of ``MLP.fit``.
        """
        work = self._stack_work(X, validation, stack, state, restart)
        with engine_or_own(engine) as running:
            with options_of_part("pretraining"):
                plan = plan_stack("pre-training", work, running)
            forget(work.state, restart)
            found: FitStackResult = carried_out(
                replace(work, memory=budget_of(work.options, running)), running, plan.folds[0]
            )
        self._take_stack(found)
        self._goes_on = True
        self.plan_ = plan
        return self

    def _stack_work(self, X: Any, validation: Any, stack: Any, state: str | Path | None, restart: bool) -> FitStack:
        hidden = units_of(self.hidden)
        if not hidden:
            raise ConfigError("hidden: a stack has one layer at least. Give the units of each.")
        machine, options = self._machine()
        work = stack_work(hidden, machine, options, X, validation, state, restart, stages=self._stages(hidden))
        return work if stack is None else replace(work, given=kept_layers(opened(stack), work))

    def _stages(self, hidden: tuple[int, ...]) -> tuple[str, ...]:
        """What each machine's training is called."""
        return tuple(f"rbm {i + 1}" for i in range(len(hidden)))

    def _machines(self) -> RBM:
        given = dict(self.pretraining or {})
        return _made("pretraining", {"n_hidden"}, {**self._shared(), **given}, given)

    def _machine(self) -> tuple[Machine, Options]:
        """How each machine is trained, checked."""
        machines = self._machines()
        with options_of_part("pretraining"):
            return machine_of(machines), machine_options(vars(machines))

    def _network(self, **fixed: Any) -> MLP:
        given = self.FINE_TUNING | dict(self.fine_tuning or {})
        return _made("fine_tuning", {"hidden", *fixed}, {**self._shared(), **given, **fixed}, given)

    def _shared(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SHARED}

    def _take_stack(self, found: FitStackResult) -> None:
        self.stack_ = found.stack
        self.history_, self.n_steps_ = list(found.history), found.n_steps
        self.notes_, self.device_ = list(found.notes), found.device

    def _train(self, work: FitBelief, running: Engine, plan: Plan, restart: bool) -> Fit:
        """Carry out a work, and keep its stack and what was told of both parts."""
        memory = budget_of(work.options, running)
        before = None if work.pretraining is None else replace(work.pretraining, memory=memory)
        work = replace(work, network=replace(work.network, memory=memory), pretraining=before)
        forget(work.network.state, restart)
        found, fit = carried_out(work, running, plan.folds[0])
        self.history_, self.n_steps_, self.notes_ = [], 0, []
        if found is not None:
            self._take_stack(found)
        elif work.stack is not None:
            self.stack_ = work.stack
        elif hasattr(self, "stack_"):
            del self.stack_
            self._goes_on = False
        self.history_ += fit.history
        self.n_steps_ += fit.n_steps
        self.notes_ += fit.notes
        self.best_epoch_, self.device_, self.plan_ = fit.best_epoch, fit.device, plan
        return fit

    def _start(
        self, X: Any, stack: Any, pretrain: bool, validation: Any, state: str | Path | None, restart: bool
    ) -> tuple[FitStack | None, Stack | None]:
        """What is to be pre-trained before fine-tuning, or the stack that is there."""
        if not pretrain:
            if stack is not None:
                raise ConfigError("pretrain: False goes without a stack. Leave one of the two out.")
            self._machine()  # an autoencoder's loss follows from its units
            return None, None
        given = self.stack_ if stack is None and getattr(self, "_goes_on", False) else stack
        work = self._stack_work(X, validation, given, state, restart)
        if work.given is not None and work.given.units == work.units:
            return None, work.given
        return work, None


class DBN(Pretrained):
    """A deep belief network: greedy layer-wise pre-training, then backpropagation of the whole network.

    Each pair of layers is trained as a restricted Boltzmann machine, the first on the rows, each next on the hidden
    units of the one before; then a softmax layer is put on top and all weights are trained on the labels.

    Parameters
    ----------
    hidden : units of each hidden layer, inputs first.
    pretraining : options of ``RBM`` other than the units, such as ``{"epochs": 30, "visible": "gaussian"}``.
    fine_tuning : options of ``MLP`` such as ``{"epochs": 30, "dropout": 0.2}``; its units are sigmoid.
    Others : as of ``MLP``, for both.

    Attributes (after ``fit``)
    --------------------------
    stack_ : the machines (``save_stack`` writes them), absent where pre-training was skipped.
    network_ : the fitted ``MLP``. classes_, best_epoch_, samples_per_parameter_ : of it.
    history_ : a dict an epoch, of the stages "rbm 1", "rbm 2" ... and "fine-tuning".

    Notes
    -----
    Passes: an epoch each, and one a machine for the means of its inputs, which are made anew for every batch: nothing
    of the data's size is kept. Memory: as of ``RBM`` for the largest machine beside all layers, then as of ``MLP``;
    the larger of the two. (Hinton, Osindero and Teh, Neural Computation 2006; Hinton and Salakhutdinov, Science
    2006.)
    """

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        validation: tuple[Any, Any] | None = None,
        unlabelled: Any = None,
        stack: Stack | str | Path | None = None,
        pretrain: bool = True,
        engine: Engine | None = None,
        state: str | Path | None = None,
        restart: bool = False,
    ) -> DBN:
        """Pre-train on ``unlabelled`` rows (without them on X), then train on X (n, D) and its labels y (n,).

        ``stack``: a pre-trained one, or its file, is used in place; one that ``pretrain`` left is too. ``pretrain``
        False starts from random weights (Xavier). The rest, and errors, are those of ``MLP.fit``; the folder
        ``state`` keeps pre-training and fine-tuning.
        """
        work, classes = self._work(X, y, validation, unlabelled, stack, pretrain, state, restart)
        with engine_or_own(engine) as running:
            plan = self._plan(work, running)
            fit = self._train(work, running, plan, restart)
        self.network_ = self._network(hidden=work.network.shape.units[1:-1], activation="sigmoid")._take(
            work.network.shape, classes, fit, work.network.train.n_rows, plan
        )
        self.classes_, self.stopped_early_ = classes, fit.stopped_early
        self.samples_per_parameter_ = self.network_.samples_per_parameter_
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The class of every row (n,); X is streamed."""
        require_fitted(self, "network_")
        return self.network_.predict(X)

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probabilities (n, K) of the classes, float32."""
        require_fitted(self, "network_")
        return self.network_.predict_proba(X)

    def score(self, X: Any, y: Any) -> float:
        """Accuracy."""
        require_fitted(self, "network_")
        return self.network_.score(X, y)

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the network as one safetensors file; ``MLP.load`` reads it."""
        require_fitted(self, "network_")
        self.network_.save(path, overwrite)

    def _work(
        self,
        X: Any,
        y: Any,
        validation: tuple[Any, Any] | None,
        unlabelled: Any,
        stack: Any,
        pretrain: bool,
        state: str | Path | None,
        restart: bool,
    ) -> tuple[FitBelief, np.ndarray | None]:
        network = self._network(hidden=units_of(self.hidden), activation="sigmoid")
        with options_of_part("fine_tuning"):
            work, classes = network._work(X, y, validation, state, restart)
        rows = X if unlabelled is None else matched(unlabelled, work.train.n_features)
        before, given = self._start(
            rows, stack, pretrain, None if validation is None else validation[0], state, restart
        )
        return FitBelief(replace(work, stage="fine-tuning"), before, given), classes

    def _plan(self, work: FitBelief, engine: Engine) -> Plan:
        n, n_parameters = work.network.train.n_rows, work.network.shape.n_parameters
        return plan_belief("dbn", work, engine, (rule_of_thumb(n, n_parameters),))


def plan_belief(job: str, work: FitBelief, engine: Engine, notes: tuple[str, ...]) -> Plan:
    """The plan of pre-training and fine-tuning, one after another; raises MemoryPlanError."""
    network, before = work.network, work.pretraining

    def nbytes(memory: int) -> int:
        with options_of_part("fine_tuning"):
            own = fit_memory(network, memory)
        if before is None:
            return own
        with options_of_part("pretraining"):
            return max(own, fit_stack_memory(before, memory))

    n_parameters = network.shape.n_parameters
    passes = network.options.epochs
    if before is None:
        start = "random weights" if work.stack is None else "a pre-trained stack"
    else:
        kept = 0 if before.given is None else len(before.given.weights)
        n_layers = len(before.units) - 1 - kept
        passes += n_layers * (before.options.epochs + 1) + 2 * (before.machine.visible == "gaussian")
        learning = learning_note(before.machine, before.options)
        start = f"{n_layers} machines that are trained first, {before.machine.visible} visible units, {learning}"
    return plan_training(
        job,
        network.train.matrix,
        engine,
        network.options,
        nbytes=nbytes,
        block_rows=network.options.batch_size or network.train.n_rows,
        result_nbytes=2 * 4 * n_parameters,
        passes=passes,
        notes=(network_note(network.shape), f"starts from {start}", *notes),
    )


def plan_dbn(
    X: Any,
    y: Any,
    model: DBN,
    *,
    validation: Any = None,
    unlabelled: Any = None,
    stack: Stack | str | Path | None = None,
    pretrain: bool = True,
    engine: Engine | None = None,
) -> Plan:
    """What ``model.fit`` would take; reads labels and metadata, no rows."""
    work, _ = model._work(X, y, validation, unlabelled, stack, pretrain, None, False)
    with engine_or_own(engine) as running:
        return model._plan(work, running)


def opened(stack: Stack | str | Path) -> Stack:
    """A stack, or that of a file."""
    return stack if isinstance(stack, Stack) else load_stack(stack)


def kept_layers(stack: Stack, work: FitStack) -> Stack:
    """The layers of a stack that training starts with; ConfigError where they see other rows, or have other units."""
    units, divide_by = work.units, work.options.divide_by
    kinds = {True: "gaussian", False: "bernoulli"}
    if stack.gaussian != (work.machine.visible == "gaussian"):
        raise ConfigError(
            f"stack: has {kinds[stack.gaussian]} visible units, asked for are {work.machine.visible} ones. Pass "
            f"pretraining visible={kinds[stack.gaussian]!r} (--pretraining.visible)."
        )
    if stack.divide_by != divide_by:
        raise ConfigError(
            f"divide_by: the stack was trained on entries divided by {stack.divide_by:g}, these are divided by "
            f"{divide_by:g}. Pass divide_by={stack.divide_by:g}."
        )
    n = 0
    while n < min(len(stack.weights), len(units) - 1) and stack.units[: n + 2] == units[: n + 2]:
        n += 1
    if not n:
        had, wanted = ("-".join(map(str, given)) for given in (stack.units, units))
        raise ConfigError(f"stack: has units {had}, the network {wanted}. Pass a stack of the same first layers.")
    return stack.layers(n)


@contextmanager
def options_of_part(part: str) -> Iterator[None]:
    """Let errors name an option of ``part`` as it was given, ``fine_tuning.batch_size``: both parts have it."""
    own = _names(part) - set(SHARED)
    try:
        yield
    except ConfigError as error:
        if str(error).partition(":")[0] not in own:
            raise
        raise ConfigError(f"{part}.{error}") from error


def _made(part: str, fixed: set[str], options: dict[str, Any], given: Mapping[str, Any]) -> Any:
    """The estimator of a part with those options; ConfigError for a name that is none, or not to be chosen."""
    known = _names(part) - fixed
    for option in given:
        if option not in known:
            raise ConfigError(f"{part}: {option!r} is not one of {', '.join(sorted(known))}.")
    return PARTS[part](**options)


def _names(part: str) -> set[str]:
    """The options of a part."""
    return set(PARTS[part].__init__.__kwdefaults__)
