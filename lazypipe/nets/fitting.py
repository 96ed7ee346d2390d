"""Fitting a network to labelled rows, as a worker does it: from a recipe to parameters and a history."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import lazypipe
from lazypipe.io.examples import Examples, digest_of
from lazypipe.nets.checkpoints import Checkpoints
from lazypipe.nets.cut import cut_rows
from lazypipe.nets.device import describe
from lazypipe.nets.initial import initial_for
from lazypipe.nets.learning import Trained
from lazypipe.nets.network import PRECISIONS, Network, Shape, network_nbytes
from lazypipe.nets.optimizers import STATE_VECTORS
from lazypipe.nets.options import Options
from lazypipe.nets.processes import Group
from lazypipe.nets.spawning import Tell
from lazypipe.nets.stream import Stream
from lazypipe.nets.training import Training
from lazypipe.sizes import MIB

VERSION = 1
JUDGED_ROWS, JUDGED_NBYTES = 256, 8 * MIB  # at once, at most
DEVICE_SHARE = 0.4  # of a GPU's free memory, for the rows of a stream
RESULTS = 3  # copies of the parameters on their way back
CURVATURE_VECTORS = 8  # that the curvature term takes meanwhile


@dataclass(frozen=True)
class Fit:
    """What a training left, as arrays: parameters (P,) of the epoch that is kept."""

    parameters: np.ndarray
    history: list[dict[str, Any]]
    n_steps: int
    best_epoch: int | None
    stopped_early: bool
    device: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class FitNetwork:
    """Backpropagation on ``train``. A Work.

    ``start`` (P,) are the parameters to begin with; None: random ones by ``initial``. ``stage`` names this part of a
    longer training, and ``state`` is the folder of its checkpoints.
    """

    shape: Shape
    options: Options
    train: Examples
    validation: Examples | None
    memory: int
    initial: str = "auto"
    dropout: float = 0.0
    input_dropout: float = 0.0
    start: np.ndarray | None = None
    state: str | None = None
    stage: str = ""

    def __call__(self, group: Group, tell: Tell) -> Fit:
        with checkpoints_of(self.state, group) as checkpoints:
            return self.within(group, tell, checkpoints)

    def within(self, group: Group, tell: Tell, checkpoints: Checkpoints | None) -> Fit:
        """The same with checkpoints that are open."""
        options, shape, device = self.options, self.shape, group.device
        random = torch.Generator(device).manual_seed(options.seed)
        network = Network(shape, random, device, self.dropout, self.input_dropout, options.precision)
        if self.start is None:
            network.initialise(initial_for(self.initial, shape.activation), options.seed)
        else:
            network.parameters.vector.copy_(torch.from_numpy(self.start))
        classifies = shape.loss == "cross_entropy"
        judged_by = None if self.validation is None else "accuracy" if classifies else "loss"
        course = options.course(network.parameters.size, judged_by, higher_is_better=classifies)
        with ExitStack() as stack:
            train = stack.enter_context(closing(self._stream(self.train, device, learning=True)))
            validation = None
            if self.validation is not None:
                validation = stack.enter_context(closing(self._stream(self.validation, device, learning=False)))
            training = Training(
                network,
                options.optimizer_of(network.parameters),
                train,
                course,
                stage=self.stage,
                validation=validation,
                group=group,
                tell=tell,
                checkpoints=checkpoints,
                identity=self.identity(train),
            )
            return fit_of(training.run(), options, device)

    def identity(self, train: Stream) -> dict[str, Any]:
        """What a checkpoint must have been made with, to go on from it."""
        data, labels = self.train.identity()
        return {
            "lazypipe": f"{lazypipe.__version__}, checkpoints {VERSION}",
            "network": f"{self.shape}, {self.shape.activation}, {self.shape.loss}",
            "data": data,
            "labels": labels,
            "validation": None if self.validation is None else list(self.validation.identity()),
            "dropout": [self.input_dropout, self.dropout],
            "initial": self.initial if self.start is None else digest_of(self.start),
            "order of rows, which follows from memory,": train.identity(),
            **self.options.identity(),
        }

    def in_order(self, examples: Examples, device: torch.device) -> Stream:
        """The rows as they lie in the source."""
        return self._stream(examples, device, learning=False)

    def _stream(self, examples: Examples, device: torch.device, learning: bool) -> Stream:
        left = memory_left(self.memory, self.shape, self.options, examples.n_rows)
        return Stream(
            examples.matrix,
            targets_of(examples, self.shape),
            divide_by=examples.divide_by,
            batch_rows=batch_rows_of(self.options, examples.n_rows) if learning else judged_rows(examples.n_features),
            memory=on_device(
                train_share(left, self.validation is not None) if learning else judged_share(left), device
            ),
            seed=self.options.seed,
            device=device,
            shuffle=learning,
        )


def checkpoints_of(state: str | None, group: Group) -> AbstractContextManager[Checkpoints | None]:
    """The folder of checkpoints, which the first process alone holds."""
    return nullcontext() if state is None or group.rank else Checkpoints(state)


def fit_of(trained: Trained, options: Options, device: torch.device) -> Fit:
    """The parameters that are kept, on the host."""
    kept = trained.best if options.keep == "best" and trained.best is not None else trained.last
    return Fit(
        kept.cpu().numpy(),
        trained.history,
        trained.n_steps,
        trained.best_epoch,
        trained.stopped_early,
        describe(device),
        tuple(trained.notes),
    )


def targets_of(examples: Examples, shape: Shape) -> np.ndarray | None:
    """As a network wants them: classes (n,) int64, values (n, 1) float32; None where it learns the rows themselves."""
    if shape.loss == "cross_entropy":
        return examples.targets.astype(np.int64)
    if len(examples.targets) == 0:
        return None
    return examples.targets.astype(np.float32)[:, None]


def batch_rows_of(options: Options, n_rows: int) -> int:
    """Rows a step; all of them where no number is given."""
    return options.batch_size or n_rows


def train_share(nbytes: int, validated: bool) -> int:
    """Of the memory that the network leaves, for the rows to learn from."""
    return nbytes - judged_share(nbytes) if validated else nbytes


def judged_rows(n_features: int) -> int:
    """Rows that are judged at once."""
    return max(1, min(JUDGED_ROWS, JUDGED_NBYTES // (4 * n_features)))


def on_device(memory: int, device: torch.device) -> int:
    """Bytes of a budget that buffers on the device may take, too."""
    if device.type != "cuda":
        return memory
    free, _ = torch.cuda.mem_get_info(device)
    return min(memory, int(DEVICE_SHARE * free))


def judged_share(nbytes: int) -> int:
    return nbytes // 4


def network_memory(shape: Shape, options: Options, n_rows: int) -> int:
    """Bytes of a training beside its rows.

    Parameters, gradient, the optimizer's state, the last and the best; once more what a checkpoint writes; and what
    passes through the units.
    """
    state = STATE_VECTORS[options.optimizer]
    vectors = 4 + state + (3 + state) + (CURVATURE_VECTORS if options.optimizer == "curvature" else 0)
    n = max(batch_rows_of(options, n_rows), judged_rows(shape.units[0]))
    itemsize = PRECISIONS[options.precision].itemsize
    return 4 * vectors * shape.n_parameters + network_nbytes(shape, n, itemsize, dropout=True)


def memory_left(memory: int, shape: Shape, options: Options, n_rows: int) -> int:
    """Of a budget, for rows: what the network and its result do not take."""
    return max(0, memory - network_memory(shape, options, n_rows) - RESULTS * 4 * shape.n_parameters)


def fit_memory(fit: FitNetwork, memory: int) -> int:
    """Bytes that a fit takes of a budget: of more it may hold more rows. MemoryPlanError where it is too small."""
    network = network_memory(fit.shape, fit.options, fit.train.n_rows)
    validated = fit.validation is not None
    left = memory_left(memory, fit.shape, fit.options, fit.train.n_rows)
    train = cut_rows(
        fit.train.matrix,
        batch_rows=batch_rows_of(fit.options, fit.train.n_rows),
        memory=train_share(left, validated),
        target_nbytes=8,
    )
    total = network + train.host_nbytes + 8 * fit.train.n_rows
    if fit.validation is not None:
        n = judged_rows(fit.train.n_features)
        judged = cut_rows(
            fit.validation.matrix, batch_rows=n, memory=judged_share(left), target_nbytes=8, shuffle=False
        )
        total += judged.host_nbytes + 8 * fit.validation.n_rows
    return total
