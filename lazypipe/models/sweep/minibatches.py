"""Mini-batches of a prefix: their order, the size of their steps, and whether the losses settle or diverge.

Every epoch takes the rows in a fresh random order, ``batch_size`` at a time. A prefix that does not hold its rows is
read in windows of neighbouring blocks, 32 MiB of float32 or one block: windows come in a fresh random order each
epoch and so do the rows within each, but rows far apart in the file are never in one batch. Where labels come in
long runs, as in files sorted by class, steps follow the run they are in and the last one weighs too much: shuffle
such a file, or give it the memory to be held.

Steps are of one size for the first half of all readings and shrink to 0, linearly, over the second. On 50,000 digits,
20 epochs, the objective then was 23% above its optimum at C = 1 and 0.002% at C = 0.001, where constant steps leave
20% and 0.17%, and steps as 1 / (1 + 10 t), t the share of all readings, 38% and 0.06%. (Defazio et al., "When, why
and how much? Adaptive learning rate scheduling by refinement", 2023.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lazypipe.models.sweep.fitted import Options, Outcome
from lazypipe.models.sweep.minibatch_kernel import gather
from lazypipe.models.sweep.rows import Prefix, block_rows
from lazypipe.sizes import MIB

WINDOW_NBYTES = 32 * MIB
CONSTANT = 0.5  # share of all readings before steps shrink
SETTLED = 0.01  # relative change of an epoch's mean loss
REMEDIES = "use a smaller learning rate, or divide the entries"
PART_ROWS = 256  # rows at once outside of a step


class Batch(NamedTuple):
    """The rows of one step, and how long the step is."""

    rows: np.ndarray  # (n, D) float32, until the next batch
    targets: np.ndarray  # (n,) int32
    rate: float  # of a step against the sum of the rows' gradients

    @property
    def penalty_rate(self) -> float:
        """Of a step against the gradient of the penalty, which every row has a share of."""
        return self.rate * len(self.rows)


class Descent:
    """The steps that minimise ``n_losses`` losses side by side, and what became of each.

    There are ``options.epochs`` epochs, more where these are fewer than ``options.least_steps`` steps. Each row
    weighs the same: a batch of fewer rows, as the last one may be, takes a shorter step. ``alive`` (n_losses,)
    are the losses that have been finite so far; once none is, there are no more batches.
    """

    def __init__(self, prefix: Prefix, targets: np.ndarray, options: Options, seed: int, n_losses: int):
        self.prefix = prefix
        self.targets = np.ascontiguousarray(targets, np.int32)
        self.batch_size = min(options.batch_size, prefix.size)
        length = prefix.size if prefix.hold else min(prefix.size, window_rows(prefix.n_features, prefix.step))
        self.windows = [slice(a, min(a + length, prefix.size)) for a in range(0, prefix.size, length)]
        n_batches = sum(math.ceil((window.stop - window.start) / self.batch_size) for window in self.windows)
        self.n_epochs = max(options.epochs, math.ceil(options.least_steps / n_batches))
        self.alive = np.ones(n_losses, bool)
        self.n_steps = 0
        self._epoch = 0
        self._rate = options.learning_rate / self.batch_size
        self._random = np.random.default_rng(seed)
        self._losses = np.zeros((self.n_epochs, n_losses))  # sums of the rows', each before its step
        self._passes = np.zeros(n_losses, int)
        self._failed = [""] * n_losses

    def batches(self) -> Iterator[Batch]:
        """All batches, each to be followed by a step and by ``record``."""
        rows = np.empty((self.batch_size, self.prefix.n_features), np.float32)
        targets = np.empty(self.batch_size, np.int32)
        n_read, n_all = 0, self.n_epochs * self.prefix.size
        for values, wanted in self._windows():
            order = self._random.permutation(np.arange(len(values), dtype=np.int32))
            for start in range(0, len(order), self.batch_size):
                chosen = order[start : start + self.batch_size]
                n = len(chosen)
                gather(values, wanted, chosen, rows[:n], targets[:n])
                self.n_steps += 1
                yield Batch(rows[:n], targets[:n], self._rate * relative_step(n_read / n_all))
                if not self.alive.any():
                    return
                n_read += n

    def _windows(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The rows of each window of each epoch, until the next one, and their targets."""
        prefix, targets = self.prefix, self.targets
        buffer = np.empty((0 if prefix.hold else self.windows[0].stop, prefix.n_features), np.float32)
        for epoch in range(self.n_epochs):
            self._epoch = epoch
            self._passes += self.alive
            if prefix.hold:
                yield prefix.all(), targets
                continue
            with prefix.examples.matrix.open() as reader:
                for i in self._random.permutation(len(self.windows)).tolist():
                    window = self.windows[i]
                    values = buffer[: window.stop - window.start]
                    if epoch == 0 or len(self.windows) > 1:  # else its rows are still there
                        prefix.read(reader, window, values)
                    yield values, targets[window]

    def record(self, batch: Batch, losses: np.ndarray) -> None:
        """Note the sums (n_losses,) of the losses of a batch: what is not finite has failed."""
        self._losses[self._epoch] += losses
        if not math.isfinite(losses.sum()):
            for i in np.flatnonzero(self.alive & ~np.isfinite(losses)).tolist():
                self._fail(i, losses[i] / len(batch.rows))

    def mean_losses(self, losses: Callable[[np.ndarray, np.ndarray], np.ndarray | float]) -> np.ndarray:
        """The mean loss (n_losses,) of all rows, in one reading; ``losses`` are sums of some rows and their targets."""
        total = np.zeros(len(self.alive))
        if self.alive.any():
            self._passes += self.alive
            for rows, values in self.prefix.blocks():
                for part in parts(len(values)):
                    total += losses(values[part], self.targets[rows][part])
        return total / self.prefix.size

    def outcomes(self, strengths: Sequence[float], objectives: np.ndarray, start: float) -> list[Outcome]:
        """What became of each strength, ``objectives`` (n_losses,) being of the last weights, ``start`` of the first.

        It converged if an epoch's mean loss changed by less than 1% from the middle epoch to the last. In trials
        the objective was then within 0.5% of its optimum; nearer ones are missed where steps are so large that
        their noise adds more than 1%.
        """
        for i in np.flatnonzero(self.alive & ~np.isfinite(objectives)).tolist():
            self._fail(i, objectives[i])
        halfway, last = self._losses[(self.n_epochs - 1) // 2], self._losses[-1]
        settled = (np.abs(last - halfway) <= SETTLED * last) & (self.n_epochs > 1) & (objectives <= start)
        outcomes = []
        for i, strength in enumerate(strengths):
            outcome = Outcome(strength, passes=int(self._passes[i]), failed=self._failed[i])
            if self.alive[i]:
                outcome.objective, outcome.converged = float(objectives[i]), bool(settled[i])
                if objectives[i] > max(start, math.log(2)):
                    rose = f"objective {start:.4g} at first, {objectives[i]:.4g} at last"
                    outcome.failed = f"diverged by step {self.n_steps:,} ({rose}): {REMEDIES}"
            outcomes.append(outcome)
        return outcomes

    def _fail(self, i: int, loss: float) -> None:
        self.alive[i] = False
        self._failed[i] = f"diverged at step {self.n_steps:,} (loss {loss:g}): {REMEDIES}"


def relative_step(progress: float) -> float:
    """The size of a step after that share of all readings, of the first one's."""
    return min(1.0, (1 - progress) / (1 - CONSTANT))


def window_rows(n_features: int, step: int) -> int:
    """Rows a window: whole blocks of ``step`` rows."""
    return max(1, WINDOW_NBYTES // (4 * n_features * step)) * step


def parts(n_rows: int) -> Iterator[slice]:
    """So few rows at once that what is made of them stays in the caches."""
    for start in range(0, n_rows, PART_ROWS):
        yield slice(start, min(start + PART_ROWS, n_rows))


def nbytes(size: int, n_features: int, options: Options) -> int:
    """Bytes of a descent at most: a window, a batch, orders and targets, the losses of all epochs of one strength."""
    window = min(size, window_rows(n_features, block_rows(n_features)))
    n_epochs = max(options.epochs, options.least_steps)
    return 4 * (n_features * (window + options.batch_size) + 4 * size) + 8 * n_epochs
