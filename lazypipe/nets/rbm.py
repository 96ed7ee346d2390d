"""Restricted Boltzmann machines, as people call them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazypipe.checks import named, whole
from lazypipe.engines import Engine, engine_or_own
from lazypipe.errors import ConfigError, DataError, require_fitted
from lazypipe.io import open_matrix
from lazypipe.nets.applying import Function, applied, matched, memory_of
from lazypipe.nets.checkpoints import checked_state, forget
from lazypipe.nets.energy import VISIBLE, EnergyModel
from lazypipe.nets.layers import Below, FitStack, FitStackResult, Machine, fit_stack_memory, n_parameters_of
from lazypipe.nets.optimizers import OPTIMIZERS
from lazypipe.nets.options import Options, options_of
from lazypipe.nets.placing import budget_of, carried_out, plan_training
from lazypipe.nets.stack import Stack, load_stack, save_stack
from lazypipe.plan import Plan
from lazypipe.stores import AnyPath

# The learning rate where none is given, at the usual momentum of 0.9. A tenth where visible units are Gaussian (Hinton
# 2012, section 13.2). Persistent chains follow the weights only where these change slowly (Tieleman 2008): at the rate
# of contrastive divergence they fall behind, and the weights run away.
RATES = {"bernoulli": 0.05, "gaussian": 0.005}
PERSISTENT_RATES = {"bernoulli": 0.002, "gaussian": 0.0002}


class RBM:
    """A restricted Boltzmann machine, trained by contrastive divergence on blocks of rows.

    Parameters
    ----------
    n_hidden : hidden units, 0 or 1.
    visible : "bernoulli", of rows in [0, 1], which are taken for probabilities; or "gaussian", of any numbers: each
        column is standardised by its mean and deviation (two more passes), which the model keeps.
    k : Gibbs steps a chain (CD-k). ``persistent`` chains go on from step to step (PCD).
    l2 : decay of the weights.
    learning_rate : None takes 0.05, of Gaussian units 0.005; with persistent chains, which follow the weights only
        where these change slowly, 0.002 and 0.0002.
    divide_by : divides all entries, as 255 does pixels.
    Others : as of ``MLP``. ``momentum`` is of the optimizer "momentum".

    Attributes (after ``fit``)
    --------------------------
    components_ (n_hidden, D), intercept_hidden_ (n_hidden,), intercept_visible_ (D,) : weights and biases, float32, as
        in scikit-learn.
    mean_, scale_ (D,) : what Gaussian units are standardised by; None for Bernoulli ones.
    history_ : a dict an epoch: train_reconstruction_error (mean squared, a unit), and of validation rows that, the
        pseudo-likelihood and the mean free energy; samples_per_second, waiting, seconds.
    n_steps_, notes_, device_, plan_ : steps taken; what happened on the way; what computed, in words; what was planned.

    Notes
    -----
    One pass an epoch, and one before for the mean of the columns, from which visible biases start. Hidden units are
    sampled where they drive visible ones, and enter statistics as probabilities. Memory: about 12 vectors of the
    parameters, 4 bytes some ten times a unit and row of a batch, and the rows that the budget leaves room for.
    (Hinton, "Training products of experts", Neural Computation 2002; "A practical guide", 2012; Tieleman, ICML 2008.)
    """

    def __init__(
        self,
        n_hidden: int = 256,
        *,
        visible: str = "bernoulli",
        k: int = 1,
        persistent: bool = False,
        l2: float = 2e-4,
        optimizer: str = "momentum",
        learning_rate: float | None = None,
        momentum: float = 0.9,
        schedule: str = "linear",
        warmup: float = 0.05,
        clip_norm: float | None = None,
        epochs: int = 10,
        batch_size: int | None = 100,
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
        self.n_hidden, self.visible, self.k, self.persistent = n_hidden, visible, k, persistent
        self.l2, self.optimizer, self.learning_rate, self.momentum = l2, optimizer, learning_rate, momentum
        self.schedule, self.warmup, self.clip_norm = schedule, warmup, clip_norm
        self.epochs, self.batch_size, self.divide_by, self.seed = epochs, batch_size, divide_by, seed
        self.device, self.precision, self.matmul_precision = device, precision, matmul_precision
        self.threads, self.processes, self.timeout = threads, processes, timeout
        self.checkpoint_steps = checkpoint_steps

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        validation: Any = None,
        engine: Engine | None = None,
        state: str | Path | None = None,
        restart: bool = False,
    ) -> RBM:
        """Train on the rows of X (n, D), a source, a path or an array; ``y`` is not used.

        ``validation``: other rows, judged after every epoch. ``state``, ``restart``, ``engine`` and errors are those
        of ``MLP.fit``; DataError too for rows outside of [0, 1] where the units are Bernoulli.
        """
        work = self._work(X, validation, state, restart)
        with engine_or_own(engine) as running:
            plan = plan_stack("rbm", work, running)
            forget(work.state, restart)
            found: FitStackResult = carried_out(
                replace(work, memory=budget_of(work.options, running)), running, plan.folds[0]
            )
        self._take(found.stack)
        self.history_, self.n_steps_, self.notes_ = found.history, found.n_steps, list(found.notes)
        self.device_, self.plan_ = found.device, plan
        return self

    def transform(self, X: Any, out: str | Path | None = None, overwrite: bool = False) -> np.ndarray | AnyPath:
        """P(h = 1 | v) of every row, (n, n_hidden) float32; written to ``out`` (.npy, .zarr, .parquet) if given."""
        return self._applied(X, lambda model, rows: model.hidden(rows), self._n_hidden, out, overwrite)

    def reconstruct(self, X: Any, out: str | Path | None = None, overwrite: bool = False) -> np.ndarray | AnyPath:
        """The mean of the visible units given each row's hidden probabilities, (n, D), in the units of X."""

        def down(model: EnergyModel, rows: Tensor) -> Tensor:
            return self._back(model.visible(model.hidden(rows)))

        return self._applied(X, down, self._n_visible, out, overwrite)

    def free_energy(self, X: Any) -> np.ndarray:
        """F(v) (n,): log p(v) is -F(v) less one constant. Only differences have a meaning."""
        return self._column(X, lambda model, rows: model.free_energy(rows)[:, None])

    def energy(self, X: Any, hidden: np.ndarray) -> np.ndarray:
        """E(v, h) (n,) of rows and as many rows of hidden units (n, n_hidden), in memory."""
        rows, units = self._in_memory(X), torch.from_numpy(np.asarray(hidden, np.float32))
        if tuple(units.shape) != (len(rows), self._n_hidden):
            raise DataError(f"hidden: has shape {tuple(units.shape)}. Give ({len(rows)}, {self._n_hidden}).")
        return self._model(torch.device("cpu")).energy(rows, units).numpy()

    def score_samples(self, X: Any, seed: int = 0) -> np.ndarray:
        """The pseudo-likelihood (n,) of each row, by one unit of it chosen at random, as in scikit-learn."""
        self._require_bernoulli()
        random = torch.Generator().manual_seed(seed)

        def judged(model: EnergyModel, rows: Tensor) -> Tensor:
            units = torch.randint(self._n_visible, (len(rows),), generator=random).to(rows.device)
            return model.pseudo_likelihood(rows, units)[:, None]

        return self._column(X, judged)

    def pseudo_likelihood(self, X: Any, seed: int = 0) -> float:
        """The mean pseudo-likelihood of the rows."""
        return float(self.score_samples(X, seed).mean(dtype=np.float64))

    def sample(self, n: int, steps: int = 1000, seed: int = 0) -> np.ndarray:
        """``n`` rows of the model (n, D): means of the visible units after so many Gibbs steps from random ones."""
        require_fitted(self, "stack_")
        model = self._model(torch.device("cpu"))
        return self._back(
            model.sample(whole(n, "n"), whole(steps, "steps"), torch.Generator().manual_seed(seed))
        ).numpy()

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the machine as one safetensors file, whole; ``RBM.load`` reads it."""
        require_fitted(self, "stack_")
        save_stack(path, self.stack_, overwrite)

    @classmethod
    def load(cls, path: str | AnyPath) -> RBM:
        """A machine from its file; the first one of a stack. DataError for any other."""
        stack = load_stack(path)
        model = cls(stack.units[1], visible="gaussian" if stack.gaussian else "bernoulli", divide_by=stack.divide_by)
        return model._take(stack.layers(1))

    def _work(self, X: Any, validation: Any, state: str | Path | None, restart: bool) -> FitStack:
        units = (whole(self.n_hidden, "n_hidden"),)
        return stack_work(units, machine_of(self), machine_options(vars(self)), X, validation, state, restart)

    def _take(self, stack: Stack) -> RBM:
        self.stack_ = stack
        self.components_, self.intercept_hidden_ = stack.weights[0], stack.biases[0]
        self.intercept_visible_ = stack.visible_biases[0]
        self.mean_, self.scale_ = stack.mean, stack.scale
        return self

    @property
    def _n_visible(self) -> int:
        require_fitted(self, "stack_")
        return self.stack_.units[0]

    @property
    def _n_hidden(self) -> int:
        require_fitted(self, "stack_")
        return self.stack_.units[1]

    def _model(self, device: torch.device) -> EnergyModel:
        stack = self.stack_
        n_visible, n_hidden = stack.units[:2]
        model = EnergyModel(n_visible, n_hidden, "gaussian" if stack.gaussian else "bernoulli", device)
        for name, array in (
            ("weight", stack.weights[0]),
            ("hidden_bias", stack.biases[0]),
            ("visible_bias", stack.visible_biases[0]),
        ):
            model.parameters.values[name].copy_(torch.from_numpy(array))
        return model

    def _back(self, rows: Tensor) -> Tensor:
        """Visible units in the units of the source."""
        if self.mean_ is not None and self.scale_ is not None:
            scale, mean = (torch.from_numpy(array).to(rows.device) for array in (self.scale_, self.mean_))
            rows = rows * scale + mean
        return rows * self.stack_.divide_by

    def _applied(
        self, X: Any, function: Any, n_outputs: int, out: str | Path | None = None, overwrite: bool = False
    ) -> np.ndarray | AnyPath:
        matrix = matched(X, self._n_visible)

        def make(device: torch.device) -> Function:
            model, standardise = self._model(device), Below(self.stack_.layers(0), device)
            return lambda rows: function(model, standardise(rows))

        options = replace(machine_options(vars(self)), divide_by=self.stack_.divide_by)
        alive = 4 * (self._n_visible + self._n_hidden)  # standardised, and back; a pseudo-likelihood's hidden units
        return applied(make, matrix, n_outputs, alive, options, out, overwrite, memory_of(self))

    def _column(self, X: Any, function: Any) -> np.ndarray:
        found = self._applied(X, function, 1)
        assert isinstance(found, np.ndarray)
        return found[:, 0]

    def _in_memory(self, X: Any) -> Tensor:
        """Rows as the model sees them."""
        rows = self._applied(X, lambda model, rows: rows, self._n_visible)
        assert isinstance(rows, np.ndarray)
        return torch.from_numpy(rows)

    def _require_bernoulli(self) -> None:
        require_fitted(self, "stack_")
        if self.stack_.gaussian:
            raise ConfigError(
                "pseudo_likelihood: is of Bernoulli visible units, these are Gaussian. Look at free_energy, or at the "
                "reconstruction error."
            )


def machine_of(values: RBM) -> Machine:
    """How the machine is trained, checked."""
    named("visible", values.visible, VISIBLE)
    if values.persistent and values.processes > 1:
        raise ConfigError("persistent: chains stay in one process. Pass processes=1, or persistent=False.")
    return Machine(values.visible, whole(values.k, "k"), bool(values.persistent))


def machine_options(values: dict[str, Any]) -> Options:
    """The options of a machine, which has no outputs to take the curvature of."""
    rate = values["learning_rate"]
    if rate is None:
        rate = (PERSISTENT_RATES if values["persistent"] else RATES)[values["visible"]]
    options = options_of({**values, "learning_rate": rate})
    if options.optimizer == "curvature":
        raise ConfigError("optimizer: curvature is of networks with outputs. Give momentum, or another one.")
    return options


def learning_note(machine: Machine, options: Options) -> str:
    """How machines learn, in words: their chains and their steps."""
    chains = f"{'persistent ' if machine.persistent else ''}CD-{machine.k}"
    momentum = f", momentum {options.momentum:g}" if OPTIMIZERS[options.optimizer].has_momentum else ""
    return f"{chains}, optimizer {options.optimizer}, learning_rate {options.rate:g}{momentum}"


def stack_work(
    hidden: tuple[int, ...],
    machine: Machine,
    options: Options,
    X: Any,
    validation: Any,
    state: str | Path | None,
    restart: bool,
    stages: tuple[str, ...] = (),
) -> FitStack:
    """What is to be trained, checked; ``memory`` is not known yet."""
    place = checked_state(state, restart)
    matrix = open_matrix(X)
    return FitStack(
        (matrix.shape[1], *hidden),
        machine,
        options,
        matrix,
        None if validation is None else matched(validation, matrix.shape[1]),
        memory=0,
        state=place,
        stages=stages,
    )


def plan_stack(job: str, work: FitStack, engine: Engine) -> Plan:
    """The plan of a training; raises MemoryPlanError."""
    sizes = n_parameters_of(work.units)
    return plan_training(
        job,
        work.matrix,
        engine,
        work.options,
        nbytes=lambda memory: fit_stack_memory(work, memory),
        block_rows=work.options.batch_size or work.matrix.shape[0],
        result_nbytes=4 * sum(sizes),
        passes=len(sizes) * (work.options.epochs + 1) + 2 * (work.machine.visible == "gaussian"),
        notes=(
            f"machines {'-'.join(map(str, work.units))}, {work.machine.visible} visible units: {sum(sizes):,} "
            "parameters",
            learning_note(work.machine, work.options),
        ),
    )


def plan_rbm(X: Any, model: RBM, *, validation: Any = None, engine: Engine | None = None) -> Plan:
    """What ``model.fit`` would take; reads metadata, no rows."""
    with engine_or_own(engine) as running:
        return plan_stack("rbm", model._work(X, validation, None, False), running)
