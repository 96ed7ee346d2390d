"""The training of any network: batches in, steps out, told as it goes, kept so that a kill costs little.

A step: the gradient of a batch, in parts where the device's memory asks for it; summed over processes; the penalty
added; clipped; and the optimizer's move. What a learner is, and how its gradient comes about, is its own matter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazypipe.checkpoint import REMEDY, require_same
from lazypipe.errors import DataError, DivergedError, EngineError
from lazypipe.nets.checkpoints import LAST, Checkpoint, Checkpoints
from lazypipe.nets.curvature import curvature_term
from lazypipe.nets.device import memory_used, wait
from lazypipe.nets.learning import Course, Differentiable, History, Learner, Trained
from lazypipe.nets.optimizers import Optimizer, clip_
from lazypipe.nets.processes import Alone, Group
from lazypipe.nets.seen import Lap, Seen
from lazypipe.nets.spawning import Tell
from lazypipe.nets.stream import Batch, Stream
from lazypipe.progress import EpochDone, StageStarted, StepsDone

LOOKED_STEPS = 50  # steps on a GPU between looks at the losses: each look waits for the device


class Training:
    """One stage of training under way."""

    def __init__(
        self,
        learner: Learner,
        optimizer: Optimizer,
        stream: Stream,
        course: Course,
        *,
        stage: str = "",
        validation: Stream | None = None,
        group: Group | None = None,
        checkpoints: Checkpoints | None = None,
        identity: Mapping[str, Any] | None = None,
        tell: Tell = lambda event: None,
    ):
        self.learner, self.optimizer, self.stream, self.course = learner, optimizer, stream, course
        self.stage, self.validation, self.checkpoints, self.tell = stage, validation, checkpoints, tell
        self.group = group or Alone()
        self.identity = dict(identity or {})
        self.device = learner.parameters.device
        self.part_rows = max(1, -(-stream.batch_rows // self.group.size))
        self.n_steps = course.epochs * stream.n_batches
        self.history: History = []
        self.notes: list[str] = []
        self.epoch = self.step = self.first_batch = 0
        self.best: Tensor | None = None
        self.best_epoch: int | None = None
        self.best_value = -math.inf
        self._seen = Seen(learner.measures, LOOKED_STEPS if self.device.type == "cuda" else 1, self.device)
        self._name = stage or "training"
        self._file = f"{self._name} {LAST}"

    def run(self) -> Trained:
        """Train from the start, or from where the checkpoint is.

        Raises DivergedError at a step whose loss is not finite, the checkpoint before it being kept.
        """
        self._resume()
        if self.group.rank == 0:
            self.tell(StageStarted(self._name, self.n_steps))
        stopped = self._has_stopped()
        while self.epoch < self.course.epochs and not stopped:
            self._one_epoch()
            stopped = self._has_stopped()
        self.learner.release()
        last = self.learner.parameters.vector.clone()
        return Trained(last, self.best, self.best_epoch, self.history, self.step, stopped, self.notes)

    def _one_epoch(self) -> None:
        begun, waited, first = time.monotonic(), self.stream.waited, self.first_batch
        lap = Lap(self.stream.waited)
        steps = self.course.checkpoint_steps
        for batch in self.stream.epoch(self.epoch, first):
            rate = self.course.rate * self.course.schedule((self.step + 0.5) / self.n_steps)
            self._one_step(batch, rate)
            lap.rows += len(batch.rows)
            if lap.is_over():
                self._look()
                self._tell_steps(lap, rate)
                lap = Lap(self.stream.waited)
            if steps is not None and self.step % steps == 0 and self.first_batch < self.stream.n_batches:
                self._look()
                self._require_finite()
                self._save()
        self._look()
        self._require_finite()
        wait(self.device)
        seconds = time.monotonic() - begun
        n_rows = self.stream.n_rows - first * self.stream.batch_rows
        measures = {f"train_{name}": value for name, value in self._seen.means().items()}
        measures |= {f"validation_{name}": value for name, value in self._judged().items()}
        measures |= {
            "samples_per_second": n_rows / seconds,
            "waiting": (self.stream.waited - waited) / seconds,
            "seconds": time.monotonic() - begun,
        }
        self.epoch += 1
        self.first_batch = 0
        self._seen.forget()
        self.history.append({"stage": self.stage, "epoch": self.epoch, "step": self.step, **measures})
        self._keep_best(measures)
        self._save()
        if self.group.rank == 0:
            self.tell(EpochDone(self.stage, self.epoch, self.course.epochs, self.step, measures))

    def _one_step(self, batch: Batch, rate: float) -> None:
        parameters, course = self.learner.parameters, self.course
        if self.group.size > 1:  # numbers of its own for every process, found again by a run that goes on
            self._reseed(self.group.rank)
        sums = self._learn(batch)
        self.group.sum_(parameters.gradient, sums)
        self._seen.add(sums, len(batch.rows), batch.index)
        if self._seen.full:
            self._look()
        if course.l2:
            n = parameters.n_weights
            parameters.gradient[:n].add_(parameters.vector[:n], alpha=course.l2)
        if course.clip_norm is not None:
            clip_(parameters, course.clip_norm)
        if course.curvature and rate:
            assert isinstance(self.learner, Differentiable), "options are refused for others"
            if self.group.size > 1:  # and the same for all, who take the same step
                self._reseed(self.group.size)
            term = curvature_term(
                self.learner.function(), parameters.vector, batch.rows, self.learner.random, course.curvature_exact
            )
            parameters.gradient.add_(term, alpha=course.curvature / rate)
        self.optimizer.step(rate)
        self.step += 1
        self.first_batch = batch.index + 1

    def _reseed(self, which: int) -> None:
        seeds = np.random.SeedSequence([self.stream.seed, which, self.step]).generate_state(1, np.uint64)
        self.learner.random.manual_seed(int(seeds[0] >> 1))

    def _learn(self, batch: Batch) -> Tensor:
        """The gradient of this process's share of a batch, in parts that fit in the device's memory."""
        rank, size = self.group.rank, self.group.size
        rows = batch.rows if size == 1 else batch.rows[rank::size]
        targets = batch.targets if size == 1 or batch.targets is None else batch.targets[rank::size]
        n_batch = len(batch.rows)
        if not len(rows):  # the last batch may have fewer rows than there are processes
            self.learner.parameters.gradient.zero_()
            return torch.zeros(len(self.learner.measures), device=self.device)
        if len(rows) <= self.part_rows and self.device.type != "cuda":
            try:
                return self.learner.learn(rows, targets, n_batch, True)
            except torch.OutOfMemoryError:
                self._halve(len(rows))
        while True:
            random = self.learner.random.get_state()
            try:
                sums: Tensor | None = None
                for start in range(0, len(rows), self.part_rows):
                    part = slice(start, start + self.part_rows)
                    wanted = None if targets is None else targets[part]
                    more = self.learner.learn(rows[part], wanted, n_batch, start == 0)
                    sums = more if sums is None else sums + more
                assert sums is not None
                return sums
            except torch.OutOfMemoryError:
                self.learner.random.set_state(random)
                self._halve(len(rows))

    def _halve(self, n_rows: int) -> None:
        """Learn from half as many rows at once; what a step is of stays the same."""
        now = min(self.part_rows, n_rows)
        if now == 1:
            raise EngineError(
                f"{self.device}: has no memory for one row of this network. Use fewer units, or device='cpu'."
            ) from None
        self.part_rows = now // 2
        self.learner.release()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.notes.append(
            f"{self._name}: {self.device} ran out of memory at step {self.step + 1:,}; since then a "
            f"batch of {self.stream.batch_rows:,} is learnt in parts of {self.part_rows:,} rows, its gradients summed"
        )

    def _look(self) -> None:
        """Take what the device measured since the last look; the first loss that is not finite ends the training.

        On a processor every step is looked at before its move; on a GPU that has been made, and is never saved.
        """
        for loss, batch in self._seen.take():
            if not math.isfinite(loss):
                raise self._diverged(f"loss is {loss:g}", batch)

    def _require_finite(self) -> None:
        """A loss tells of the weights before a step: look at those after it before they are kept."""
        if not bool(self.learner.parameters.vector.isfinite().all()):
            raise self._diverged("weights are not finite", self.first_batch - 1)

    def _diverged(self, what: str, batch: int) -> DivergedError:
        n_batches, where = self.stream.n_batches, f"{self.stage}: " if self.stage else ""
        kept = "" if self.checkpoints is None else f" The checkpoint before it is kept in {self.checkpoints.path}."
        return DivergedError(
            f"{where}{what} at step {self.epoch * n_batches + batch + 1:,}: batch {batch + 1:,} of "
            f"{n_batches:,} in epoch {self.epoch + 1:,}. Use a smaller learning_rate (here {self.course.rate:g}), set "
            f"clip_norm, or divide the entries (divide_by).{kept}"
        )

    def _tell_steps(self, lap: Lap, rate: float) -> None:
        if self.group.rank:
            return
        wait(self.device)
        measures = self._seen.recent()
        measures["learning_rate"] = rate
        seconds = lap.seconds()
        measures["samples_per_second"] = lap.rows / seconds
        measures["waiting"] = (self.stream.waited - lap.waited) / seconds
        if self.device.type == "cuda":
            measures["device_memory"] = float(memory_used(self.device))
        self.tell(StepsDone(self.stage, self.step, measures))

    def _judged(self) -> dict[str, float]:
        """Means of the judgements over the validation rows, each process judging its share."""
        if self.validation is None:
            return {}
        return judged(self.learner, self.validation, self.group)

    def _keep_best(self, measures: Mapping[str, float]) -> None:
        name = self.course.judged_by
        if name is None:
            return
        value = measures[f"validation_{name}"] * (1 if self.course.higher_is_better else -1)
        if value > self.best_value:
            self.best_value, self.best_epoch = value, self.epoch
            self.best = self.learner.parameters.vector.clone()

    def _has_stopped(self) -> bool:
        patience = self.course.patience
        stops = patience is not None and self.best_epoch is not None and self.epoch - self.best_epoch >= patience
        return bool(self.group.agree(int(stops)))

    def _save(self) -> None:
        """What it takes to go on from here with the same numbers."""
        if self.checkpoints is None or self.group.rank:
            return
        header = {
            "identity": self.identity,
            "epoch": self.epoch,
            "first_batch": self.first_batch,
            "step": self.step,
            "seen": self._seen.state(),
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best_value": self.best_value if self.best_epoch is not None else None,
            "notes": self.notes,
            "device": self.device.type,
        }
        tensors = {"parameters": self.learner.parameters.vector, "random": self.learner.random.get_state()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in self.optimizer.tensors().items()}
        tensors |= {f"learner.{name}": tensor for name, tensor in self.learner.tensors().items()}
        if self.best is not None:
            tensors["best"] = self.best
        self.checkpoints.save(self._file, header, tensors)

    def _resume(self) -> None:
        saved = None if self.checkpoints is None else self.checkpoints.load(self._file)
        if saved is not None:
            assert self.checkpoints is not None
            path, n_done = self.checkpoints.file(self._file), saved.header["epoch"]
            require_same(path, saved.header["identity"], self.identity)
            if n_done > self.course.epochs:
                raise DataError(
                    f"{path}: has {n_done:,} epochs, this run asks for {self.course.epochs:,}. Ask for as many or "
                    f"more. {REMEDY}"
                )
            self._restore(saved)
        if self.group.size > 1 and self.group.agree(self.step):
            self._follow()

    def _follow(self) -> None:
        """Every process where the first one is, which alone reads the checkpoint."""
        agree = self.group.agree
        self.step, self.epoch, self.first_batch = agree(self.step), agree(self.epoch), agree(self.first_batch)
        self.best_epoch = agree(self.best_epoch or 0) or None
        tensors = [self.learner.parameters.vector, *self.optimizer.tensors().values(), *self.learner.tensors().values()]
        for tensor in tensors:
            there = tensor.to(self.device) if self.group.rank == 0 else torch.zeros_like(tensor, device=self.device)
            self.group.sum_(there)
            tensor.copy_(there)

    def _restore(self, saved: Checkpoint) -> None:
        header, tensors = saved
        self.learner.parameters.vector.copy_(tensors["parameters"])
        self.optimizer.load(_part(tensors, "optimizer."))
        kept = self.learner.tensors()
        for name, tensor in _part(tensors, "learner.").items():
            kept[name].copy_(tensor)
        self.epoch, self.first_batch, self.step = header["epoch"], header["first_batch"], header["step"]
        self._seen.restore(header["seen"])
        self.history, self.notes = header["history"], header["notes"]
        if header["device"] == self.device.type:
            self.learner.random.set_state(tensors["random"])
        else:  # whose random numbers are others
            self._reseed(0)
            self.notes.append(
                f"{self._name}: began on {header['device']}, went on at step {self.step + 1:,} on {self.device}"
            )
        self.best_epoch = header["best_epoch"]
        if self.best_epoch is not None:
            self.best_value, self.best = header["best_value"], tensors["best"].to(self.device)


def judged(learner: Learner, stream: Stream, group: Group | None = None) -> dict[str, float]:
    """Means of the judgements over all rows of a stream that is in order."""
    group = group or Alone()
    total = torch.zeros(len(learner.judgements), dtype=torch.float64, device=learner.parameters.device)
    for batch in stream.epoch(0):
        if batch.index % group.size == group.rank:
            total += _judged(learner, batch.rows, batch.targets)
    group.sum_(total)
    return dict(zip(learner.judgements, (total / stream.n_rows).tolist(), strict=True))


def _judged(learner: Learner, rows: Tensor, targets: Tensor | None) -> Tensor:
    """The sums of the judgements, by halves where the device has no memory for all rows at once."""
    try:
        return learner.judge(rows, targets)
    except torch.OutOfMemoryError:
        half = len(rows) // 2
        if not half:
            raise EngineError(
                f"{rows.device}: has no memory to judge one row. Use fewer units, or device='cpu'."
            ) from None
    learner.release()
    parts = [(rows[part], None if targets is None else targets[part]) for part in (slice(half), slice(half, None))]
    return sum((_judged(learner, *part) for part in parts), torch.zeros((), device=rows.device))


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
