"""Batches of rows of a source in a seeded random order, read ahead of the training that takes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lazypipe.errors import DataError
from lazypipe.io.matrix import Matrix
from lazypipe.nets.cut import Cut, cut_rows, parts, shuffle_rows
from lazypipe.nets.filling import Buffer, Copying, Filling, InPlace, Staged, empty_targets, target_nbytes

COLLECTED_SECONDS = 1.0  # that the thread of a stream that is collected has to end


class Batch(NamedTuple):
    """Rows and their targets on the device, valid until the next batch."""

    rows: Tensor  # (n, D) float32, divided by ``divide_by``
    targets: Tensor | None  # (n,) int64, or (n, k) float32
    index: int  # type: ignore[assignment]  # of its epoch; as a name it comes before tuple.index


class Stream:
    """The rows of ``matrix`` (n_rows, D), dense or sparse, with ``targets`` in batches on ``device``.

    Rows lie in buffers on the device in the dtype of the source (float32 where that is wider), and are cast and divided
    a batch at a time. Where all fit, they are read once and stay (``resident``). Else there are two buffers: a thread
    fills one while the other is emptied, and goes on with the next epoch while the caller judges this one. Blocks of
    a buffer come from all over the file, which is sought in: of formats that decode whole chunks or row groups a
    pass costs several, so convert these to .npy first. With ``shuffle=False`` rows come in the order of the file, and
    a batch of more rows than there are is one of all.

    ``targets``: classes, (n_rows,) of integers, or values, (n_rows, k) of floats. ``memory`` bytes are the most it
    takes on the host, and on the device where that is another; ``cut_rows`` tells them before anything is read.

    Raises DataError for targets of other rows, and as it reads for NaN, infinities and entries beyond float32, which
    it names; MemoryPlanError and ConfigError as ``cut_rows``. One epoch at a time, in one thread.
    """

    _filling: Filling | None = None

    def __init__(
        self,
        matrix: Matrix,
        targets: np.ndarray | None,
        *,
        divide_by: float = 1.0,
        batch_rows: int,
        memory: int,
        seed: int,
        device: torch.device,
        shuffle: bool = True,
    ):
        if targets is not None and len(targets) != matrix.shape[0]:
            raise DataError(
                f"{matrix.uri}: has {matrix.shape[0]:,} rows, but there are {len(targets):,} targets. "
                f"Give one for each row."
            )
        self.matrix, self.targets, self.divide_by = matrix, targets, divide_by
        self.seed, self.device = seed, torch.device(device)
        self.cut = cut_rows(
            matrix,
            batch_rows=batch_rows,
            memory=memory,
            target_nbytes=target_nbytes(targets),
            on_host=self.device.type == "cpu",
            shuffle=shuffle,
        )
        self.n_rows, self.n_features = matrix.shape
        self.batch_rows, self.n_batches = self.cut.batch_rows, self.cut.n_batches
        self.buffer_rows, self.resident = self.cut.buffer_rows, self.cut.resident
        self.host_nbytes, self.device_nbytes = self.cut.host_nbytes, self.cut.device_nbytes
        self.waited = 0.0  # seconds in all that the caller has waited for rows
        self._turn = 0  # of epochs begun, of which the last one alone goes on
        self._ahead = (-1, -1)  # the (epoch, buffer) that the thread gives next
        self._memory: _Memory | None = None

    def identity(self) -> dict[str, Any]:
        """What fixes the order of the rows, for JSON: where it is equal, ``epoch`` gives the same batches."""
        cut = self.cut
        return {
            "seed": self.seed,
            "shuffle": cut.shuffle,
            "n_rows": cut.n_rows,
            "batch_rows": cut.batch_rows,
            "buffer_rows": cut.buffer_rows,
            "block_rows": cut.block_rows,
        }

    def epoch(self, index: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from ``first_batch`` on: a function of (seed, index, first_batch) alone.

        To end before its end, or with an exception, ends the reading.
        """
        self._turn += 1
        turn, finished = self._turn, False
        try:
            for batch in self._batches(index, first_batch):
                yield batch
                if turn != self._turn:
                    raise RuntimeError("this stream was closed, or another epoch of it has begun")
            finished = True
        finally:
            if not finished and turn == self._turn:
                self._stop()

    def close(self) -> None:
        """End the reading and give the memory back; another epoch would begin anew."""
        self._turn += 1
        self._stop()
        self._memory = None

    def __del__(self) -> None:
        if self._filling is not None:  # whoever collects garbage may hold a lock that the thread needs
            self._filling.stop(COLLECTED_SECONDS)

    def _batches(self, epoch: int, first_batch: int) -> Iterator[Batch]:
        cut = self.cut
        memory = self._memory = self._memory or _Memory(cut, self.targets, self.device)
        for index in range(first_batch // cut.buffer_batches, cut.n_buffers):
            began = time.perf_counter()
            buffer = self._resident(memory, epoch) if cut.resident else self._next(memory, epoch, index)
            self.waited += time.perf_counter() - began
            first = index * cut.buffer_batches
            last = min(first + cut.buffer_batches, cut.n_batches)
            for batch in range(max(first, first_batch), last):
                n = min(cut.batch_rows, cut.n_rows - batch * cut.batch_rows)
                yield self._batch(memory, buffer, (batch - first) * cut.batch_rows, n, batch)
            if self._filling is not None:
                self._filling.release(buffer)

    def _next(self, memory: _Memory, epoch: int, index: int) -> Buffer:
        """Buffer ``index`` of a streamed epoch; the thread is started where it would give another."""
        epoch = epoch if self.cut.shuffle else 0
        if self._filling is None or self._ahead != (epoch, index):
            self._start(memory, epoch, index)
        assert self._filling is not None
        try:
            buffer = self._filling.take()
        except BaseException:
            self._stop()
            raise
        if index + 1 < self.cut.n_buffers:
            self._ahead = epoch, index + 1
        else:  # without shuffling the thread ends here
            self._ahead = (epoch + 1, 0) if self.cut.shuffle else (-1, -1)
        return buffer

    def _resident(self, memory: _Memory, epoch: int) -> Buffer:
        """The buffer of all rows, read the first time, in the order of an epoch."""
        buffer = memory.buffers[0]
        if not memory.full:
            self._start(memory, 0, 0)
            assert self._filling is not None
            try:
                self._filling.take()
            finally:
                self._stop()
            memory.full, memory.epoch = True, 0
        if buffer.order is not None and memory.epoch != epoch:
            order = buffer.order.cpu()  # itself, where it is there
            shuffle_rows(order.numpy(), self.seed, epoch, 0)
            if order is not buffer.order:
                buffer.order.copy_(order)
            memory.epoch = epoch
        return buffer

    def _batch(self, memory: _Memory, buffer: Buffer, start: int, n: int, index: int) -> Batch:
        copying, rows = memory.copying, memory.rows[:n]
        targets = None if memory.targets is None else memory.targets[:n]
        if buffer.order is None:
            held = buffer.rows[start : start + n]
            if targets is not None and buffer.targets is not None:
                targets.copy_(buffer.targets[start : start + n])
        else:
            held = rows if memory.held is memory.rows else memory.held[:n]
            order = buffer.order[start : start + n]
            copying.gather(buffer.rows, order, held)
            if targets is not None and buffer.targets is not None:
                copying.gather(buffer.targets, order, targets)
        copying.divide(held, self.divide_by, rows)
        return Batch(rows, targets, index)

    def _start(self, memory: _Memory, epoch: int, index: int) -> None:
        self._stop()
        order = parts(self.cut, self.seed, epoch, index)
        self._filling = Filling(self.matrix, self.targets, self.seed, order, memory.buffers, memory.copying)

    def _stop(self) -> None:
        if self._filling is not None:
            self._filling.stop()
            self._filling, self._ahead = None, (-1, -1)


class _Memory:
    """The buffers of a stream, and one batch."""

    def __init__(self, cut: Cut, targets: np.ndarray | None, device: torch.device):
        self.buffers = [Buffer(cut, targets, device) for _ in range(min(cut.n_buffers, 2))]
        self.copying: Copying = InPlace() if cut.on_host else Staged(cut, targets, device)
        self.rows = torch.empty((cut.batch_rows, cut.n_features), device=device)
        dtype = self.buffers[0].rows.dtype
        self.held = self.rows if dtype == torch.float32 else torch.empty_like(self.rows, dtype=dtype)
        self.targets = None if targets is None else empty_targets(targets, cut.batch_rows, device)
        self.full, self.epoch = False, -1  # of rows that stay: they were read; the epoch they are in the order of
