"""Training Boltzmann machines on what lies below them: the first on rows, each next on the units of the one before.

Greedy layer-wise training of deep belief networks (Hinton, Osindero and Teh, Neural Computation 2006): a machine is
trained, its weights stay, and the probabilities of its hidden units are the rows of the next. They are made anew for
every batch, so nothing of the data's size is kept.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lazypipe
from lazypipe.errors import DataError
from lazypipe.io.matrix import Matrix
from lazypipe.nets.boltzmann import Boltzmann, boltzmann_nbytes
from lazypipe.nets.checkpoints import Checkpoints
from lazypipe.nets.cut import cut_rows
from lazypipe.nets.device import describe
from lazypipe.nets.fitting import (
    RESULTS,
    VERSION,
    batch_rows_of,
    checkpoints_of,
    judged_rows,
    judged_share,
    on_device,
    train_share,
)
from lazypipe.nets.learning import History, Learner, Trained
from lazypipe.nets.network import PRECISIONS
from lazypipe.nets.optimizers import STATE_VECTORS
from lazypipe.nets.options import Options
from lazypipe.nets.parameters import Parameters
from lazypipe.nets.processes import Group
from lazypipe.nets.spawning import Tell
from lazypipe.nets.stack import Stack
from lazypipe.nets.stream import Batch, Stream
from lazypipe.nets.training import Training

SLACK = 1e-6  # that a probability may lie outside of 0 to 1, for rounding
LEAST_SCALE = 1e-6  # of a column's deviation; less is that of a constant


@dataclass(frozen=True)
class Machine:
    """How each Boltzmann machine of a stack is trained."""

    visible: str = "bernoulli"  # of the first; those above are binary
    k: int = 1
    persistent: bool = False


@dataclass(frozen=True)
class FitStackResult:
    """A trained stack, and how it went."""

    stack: Stack
    history: History
    n_steps: int
    device: str
    notes: tuple[str, ...]


class Below:
    """What a row is once it has passed the layers that are trained: a function of rows (n, D) on the device."""

    def __init__(self, stack: Stack, device: torch.device):
        def there(array: np.ndarray | None) -> Tensor | None:
            return None if array is None else torch.from_numpy(array).to(device)

        self.mean, self.scale = there(stack.mean), there(stack.scale)
        self.layers = [
            (torch.from_numpy(weight).to(device), torch.from_numpy(bias).to(device))
            for weight, bias in zip(stack.weights, stack.biases, strict=True)
        ]

    def __call__(self, rows: Tensor) -> Tensor:
        if self.mean is not None and self.scale is not None:
            rows = (rows - self.mean).div_(self.scale)
        for weight, bias in self.layers:
            rows = torch.addmm(bias, rows, weight.t()).sigmoid_()
        return rows


class Above:
    """A machine that learns from what the layers below make of rows; a Learner."""

    def __init__(self, machine: Boltzmann, below: Below):
        self.machine, self.below = machine, below
        self.random, self.measures, self.judgements = machine.random, machine.measures, machine.judgements

    @property
    def parameters(self) -> Parameters:
        return self.machine.parameters

    def learn(self, rows: Tensor, targets: Tensor | None, n_batch: int, first: bool) -> Tensor:
        return self.machine.learn(self.below(rows), None, n_batch, first)

    def judge(self, rows: Tensor, targets: Tensor | None) -> Tensor:
        return self.machine.judge(self.below(rows), None)

    def tensors(self) -> dict[str, Tensor]:
        return self.machine.tensors()

    def release(self) -> None:
        self.machine.release()


@dataclass(frozen=True, eq=False)
class FitStack:
    """Machines of ``units`` (inputs first), trained one after another. A Work.

    ``state`` is the folder of checkpoints: layers that are in it are taken from there. ``given`` is a stack that was
    trained before; those of its layers that have the units asked for stay, and training begins above them.
    """

    units: tuple[int, ...]
    machine: Machine
    options: Options
    matrix: Matrix
    validation: Matrix | None
    memory: int
    state: str | None = None
    stages: tuple[str, ...] = ()
    given: Stack | None = None

    def __call__(self, group: Group, tell: Tell) -> FitStackResult:
        with checkpoints_of(self.state, group) as checkpoints:
            return self.within(group, tell, checkpoints)

    def within(self, group: Group, tell: Tell, checkpoints: Checkpoints | None) -> FitStackResult:
        """The same with checkpoints that are open."""
        stack = self.given or Stack(self.units[:1], (), (), self.options.divide_by)
        history: History = []
        notes: list[str] = []
        n_steps = 0
        with closing(self._stream(self.matrix, group.device, False)) as rows:
            if self.machine.visible == "gaussian" and not stack.gaussian:
                stack = standardised(stack, rows)
            for layer in range(len(stack.weights), len(self.units) - 1):
                stack, more = self._layer(layer, stack, rows, group, tell, checkpoints)
                history += more.history
                notes += more.notes
                n_steps += more.n_steps
        return FitStackResult(stack, history, n_steps, describe(group.device), tuple(notes))

    def _layer(
        self, layer: int, stack: Stack, rows: Stream, group: Group, tell: Tell, checkpoints: Checkpoints | None
    ) -> tuple[Stack, Trained]:
        """Train the machine over the layers of ``stack``; the stack with it."""
        options, device = self.options, group.device
        n_visible, n_hidden = self.units[layer : layer + 2]
        below = Below(stack, device)
        visible = self.machine.visible if layer == 0 else "bernoulli"
        machine = Boltzmann(
            n_visible,
            n_hidden,
            torch.Generator(device).manual_seed(options.seed + layer),
            visible="gaussian" if visible == "gaussian" else "bernoulli",
            k=self.machine.k,
            persistent=self.machine.persistent,
            n_chains=batch_rows_of(options, rows.n_rows) if self.machine.persistent else 0,
            precision=options.precision,
        )
        binary = visible == "bernoulli"
        mean = mean_of(rows, below, n_visible, binary and layer == 0)
        machine.initialise(mean, torch.Generator().manual_seed(options.seed + layer))
        learner: Learner = machine if not stack.weights and not stack.gaussian else Above(machine, below)
        with closing(self._stream(self.matrix, device, True)) as train, closing(
            self._stream(self.validation or self.matrix, device, False)
        ) as validation:  # fmt: skip
            trained = Training(
                learner,
                options.optimizer_of(machine.parameters),
                train,
                options.course(machine.parameters.size, None, False),
                stage=self.stages[layer] if self.stages else "",
                validation=validation if self.validation is not None else None,
                group=group,
                checkpoints=checkpoints,
                identity=self.identity(layer, stack, train),
                tell=tell,
            ).run()
        found = machine.parameters.views(trained.last)
        return with_layer(stack, *(found[name] for name in ("weight", "hidden_bias", "visible_bias"))), trained

    def identity(self, layer: int, stack: Stack, train: Stream) -> dict[str, Any]:
        """What a checkpoint must have been made with, to go on from it."""
        return {
            "lazypipe": f"{lazypipe.__version__}, checkpoints {VERSION}",
            "machine": f"{self.units[layer]}-{self.units[layer + 1]}, {self.machine}",
            "data": self.matrix.fingerprint(),
            "validation": None if self.validation is None else self.validation.fingerprint(),
            "below": stack.digest,
            "order of rows, which follows from memory,": train.identity(),
            **self.options.identity(),
        }

    def _stream(self, matrix: Matrix, device: torch.device, learning: bool) -> Stream:
        left = stack_memory_left(self.memory, self.units, self.options, self.matrix.shape[0])
        return Stream(
            matrix,
            None,
            divide_by=self.options.divide_by,
            batch_rows=batch_rows_of(self.options, matrix.shape[0]) if learning else judged_rows(matrix.shape[1]),
            memory=on_device(train_share(left, True) if learning else judged_share(left) // 2, device),
            seed=self.options.seed,
            device=device,
            shuffle=learning,
        )


def with_layer(stack: Stack, weight: Tensor, hidden_bias: Tensor, visible_bias: Tensor) -> Stack:
    """The stack with one more layer on top."""
    weight, hidden_bias, visible_bias = (t.cpu().clone() for t in (weight, hidden_bias, visible_bias))
    return Stack(
        (*stack.units, len(hidden_bias)),
        (*stack.weights, weight.numpy()),
        (*stack.biases, hidden_bias.numpy()),
        stack.divide_by,
        (*stack.visible_biases, visible_bias.numpy()),
        stack.mean,
        stack.scale,
    )


def mean_of(rows: Stream, below: Below, n_visible: int, probabilities: bool) -> Tensor:
    """The mean (n_visible,) float32 of what machines of a layer see, in one reading.

    Raises DataError for rows that are no ``probabilities`` where they should be.
    """
    total = torch.zeros(n_visible, dtype=torch.float64, device=rows.device)
    for batch in rows.epoch(0):
        if probabilities:
            _require_inside(rows, batch)
        total += below(batch.rows).sum(0, dtype=torch.float64)
    return (total / rows.n_rows).float().cpu()


def require_probabilities(rows: Stream) -> None:
    """Read all rows once; DataError for an entry outside of 0 to 1."""
    for batch in rows.epoch(0):
        _require_inside(rows, batch)


def _require_inside(rows: Stream, batch: Batch) -> None:
    outside = (batch.rows < -SLACK) | (batch.rows > 1 + SLACK)
    if bool(outside.any()):
        raise _outside(rows, batch.rows, batch.index, outside)


def _outside(rows: Stream, values: Tensor, index: int, outside: Tensor) -> DataError:
    row, column = outside.nonzero()[0].tolist()
    uri, value = rows.matrix.uri, float(values[row, column]) * rows.divide_by
    remedy = "standardise with visible='gaussian' (--visible gaussian)"
    if value > 0 and bool((values >= 0).all()):
        largest = 255 if value <= 255 else f"{float(values.max()) * rows.divide_by:g} or more"
        remedy = f"scale with divide_by={largest} (--divide-by), or {remedy}"
    return DataError(
        f"{uri}: {value:g} at row {index * rows.batch_rows + row:,}, column {column:,}: Bernoulli units take 0 to 1. "
        f"{remedy[0].upper() + remedy[1:]}."
    )


def standardised(stack: Stack, rows: Stream) -> Stack:
    """With the mean and deviation of each column, in two readings; 1 for the deviation of a constant."""
    mean = mean_of(rows, Below(stack, rows.device), rows.n_features, False)
    there = mean.to(rows.device)
    squares = torch.zeros(rows.n_features, dtype=torch.float64, device=rows.device)
    for batch in rows.epoch(0):
        squares += (batch.rows - there).square_().sum(0, dtype=torch.float64)
    scale = (squares / rows.n_rows).sqrt()
    scale = torch.where(scale > LEAST_SCALE * (1 + there.abs()), scale, torch.ones_like(scale)).float().cpu()
    return Stack(stack.units, (), (), stack.divide_by, (), mean.numpy(), scale.numpy())


def stack_memory(units: tuple[int, ...], options: Options, n_rows: int) -> int:
    """Bytes of a training beside its rows: all layers, the vectors of the largest one, and what passes through."""
    sizes = n_parameters_of(units)
    n = max(batch_rows_of(options, n_rows), judged_rows(units[0]))
    vectors = 7 + 2 * STATE_VECTORS[options.optimizer]  # as of a network, and what a checkpoint writes
    itemsize = PRECISIONS[options.precision].itemsize
    machine = max(boltzmann_nbytes(a, b, n, itemsize=itemsize) for a, b in pairwise(units))
    chains = 4 * n * max(units[1:])
    return 3 * 4 * sum(sizes) + 4 * vectors * max(sizes) + machine + chains + 4 * n * sum(units)


def stack_memory_left(memory: int, units: tuple[int, ...], options: Options, n_rows: int) -> int:
    """Of a budget, for rows: what the machines and the result do not take."""
    return max(0, memory - stack_memory(units, options, n_rows) - RESULTS * 4 * sum(n_parameters_of(units)))


def n_parameters_of(units: tuple[int, ...]) -> list[int]:
    """Of each machine."""
    return [(a + 1) * b + a for a, b in pairwise(units)]


def fit_stack_memory(work: FitStack, memory: int) -> int:
    """Bytes that it takes of a budget: of more it may hold more rows. MemoryPlanError where it is too small."""
    own = stack_memory(work.units, work.options, work.matrix.shape[0])
    left = stack_memory_left(memory, work.units, work.options, work.matrix.shape[0])
    train = cut_rows(
        work.matrix, batch_rows=batch_rows_of(work.options, work.matrix.shape[0]), memory=train_share(left, True)
    )
    n, share = judged_rows(work.units[0]), judged_share(left) // 2
    judged = [
        cut_rows(matrix, batch_rows=n, memory=share, shuffle=False).host_nbytes
        for matrix in (work.matrix, work.validation or work.matrix)
    ]
    return own + train.host_nbytes + sum(judged)
