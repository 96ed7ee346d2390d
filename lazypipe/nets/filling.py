"""A thread that fills buffers with rows of a source, one while the other is emptied."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lazypipe.blocks import Block, Span
from lazypipe.errors import DataError
from lazypipe.io.matrix import Matrix
from lazypipe.nets.cut import Cut, Part, shuffle_rows
from lazypipe.stats.base import require_finite


class Buffer:
    """Memory on the device for rows in the dtype of the source, their targets, and the order they are taken in."""

    def __init__(self, cut: Cut, targets: np.ndarray | None, device: torch.device):
        n = cut.buffer_rows
        self.rows = torch.empty((n, cut.n_features), dtype=torch_dtype(cut.dtype), device=device)
        self.targets = None if targets is None else empty_targets(targets, n, device)
        self.order = torch.empty(n, dtype=torch.int32, device=device) if cut.shuffle else None
        # Of a CUDA device: all is copied; all copies out of it are under way.
        self.filled: Any = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.emptied: Any = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    @property
    def tensors(self) -> list[Tensor]:
        return [tensor for tensor in (self.rows, self.targets, self.order) if tensor is not None]


class Copying(Protocol):
    """How rows come into a buffer on the device. ``take`` and ``release`` are called by the thread that empties it."""

    def begin(self, buffer: Buffer) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Memory on the host for the targets and the order of the whole buffer."""

    def block(self, buffer: Buffer, start: int, n: int) -> np.ndarray:
        """Memory on the host for ``n`` rows of the buffer from ``start`` on."""

    def send(self, buffer: Buffer, start: int, n: int) -> None:
        """That block has been written."""

    def finish(self, buffer: Buffer) -> None:
        """Targets and order have been written, too: whatever ``begin`` gave."""

    def take(self, buffer: Buffer) -> None: ...

    def release(self, buffer: Buffer) -> None: ...

    def gather(self, held: Tensor, order: Tensor, out: Tensor) -> None:
        """Fill ``out`` with the rows of a buffer that ``order`` names."""

    def divide(self, held: Tensor, divide_by: float, rows: Tensor) -> None:
        """Fill ``rows`` with ``held`` in float32, divided; they may be the same."""


class InPlace:
    """Into buffers on the host.

    Batches are gathered by NumPy in this one thread: 30 to 60 us for 128 x 784. PyTorch's threads take 10 us less on
    idle cores, but wait for one another on busy ones: 2 to 7 ms on average where other work shares the cores.
    """

    def begin(self, buffer: Buffer) -> tuple[np.ndarray | None, np.ndarray | None]:
        targets, order = buffer.targets, buffer.order
        return None if targets is None else targets.numpy(), None if order is None else order.numpy()

    def block(self, buffer: Buffer, start: int, n: int) -> np.ndarray:
        return buffer.rows[start : start + n].numpy()

    def send(self, buffer: Buffer, start: int, n: int) -> None: ...

    def finish(self, buffer: Buffer) -> None: ...

    def take(self, buffer: Buffer) -> None: ...

    def release(self, buffer: Buffer) -> None: ...

    def gather(self, held: Tensor, order: Tensor, out: Tensor) -> None:
        np.take(held.numpy(), order.numpy(), axis=0, out=out.numpy(), mode="clip")  # "raise" would copy ``out``

    def divide(self, held: Tensor, divide_by: float, rows: Tensor) -> None:
        found, out = held.numpy(), rows.numpy()
        if divide_by != 1:
            np.divide(found, np.float32(divide_by), out=out, dtype=np.float32, casting="unsafe")
        elif held is not rows:
            np.copyto(out, found)


class Staged:
    """Into buffers on a CUDA device, through two pinned blocks and on a stream of its own.

    One block is copied while the other is read. Not yet run on a device.
    """

    def __init__(self, cut: Cut, targets: np.ndarray | None, device: torch.device):
        shape, dtype, host = (cut.read_rows, cut.n_features), torch_dtype(cut.dtype), torch.device("cpu")
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._blocks = [torch.empty(shape, dtype=dtype, pin_memory=True) for _ in range(2)]
        self._copied = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]
        self._turn = 0
        self._targets = None if targets is None else empty_targets(targets, cut.buffer_rows, host)
        self._order = torch.empty(cut.buffer_rows, dtype=torch.int32) if cut.shuffle else None

    def begin(self, buffer: Buffer) -> tuple[np.ndarray | None, np.ndarray | None]:
        self.stream.wait_event(buffer.emptied)
        targets, order = self._targets, self._order
        return None if targets is None else targets.numpy(), None if order is None else order.numpy()

    def block(self, buffer: Buffer, start: int, n: int) -> np.ndarray:
        self._turn ^= 1
        self._copied[self._turn].synchronize()  # at once where nothing was copied from it yet
        return self._blocks[self._turn][:n].numpy()

    def send(self, buffer: Buffer, start: int, n: int) -> None:
        with torch.cuda.stream(self.stream):
            buffer.rows[start : start + n].copy_(self._blocks[self._turn][:n], non_blocking=True)
            self._copied[self._turn].record(self.stream)

    def finish(self, buffer: Buffer) -> None:
        with torch.cuda.stream(self.stream):
            if buffer.targets is not None and self._targets is not None:
                buffer.targets.copy_(self._targets)  # not pinned: the copy is done when this returns
            if buffer.order is not None and self._order is not None:
                buffer.order.copy_(self._order)
            buffer.filled.record(self.stream)

    def take(self, buffer: Buffer) -> None:
        torch.cuda.current_stream(self.device).wait_event(buffer.filled)

    def release(self, buffer: Buffer) -> None:
        buffer.emptied.record(torch.cuda.current_stream(self.device))
        for tensor in buffer.tensors:
            tensor.record_stream(self.stream)  # its memory is not another's before the copies are done

    def gather(self, held: Tensor, order: Tensor, out: Tensor) -> None:
        torch.index_select(held, 0, order, out=out)

    def divide(self, held: Tensor, divide_by: float, rows: Tensor) -> None:
        if held is not rows:
            rows.copy_(held)
        if divide_by != 1:
            rows.div_(divide_by)


class Filling:
    """Fills ``buffers`` with ``parts`` in turn, from when it is made until they end, ``stop``, or an error."""

    def __init__(
        self,
        matrix: Matrix,
        targets: np.ndarray | None,
        seed: int,
        parts: Iterable[Part],
        buffers: list[Buffer],
        copying: Copying,
    ):
        self.matrix, self.targets, self.seed = matrix, targets, seed
        self._parts, self._copying = parts, copying
        self._empty: SimpleQueue[Buffer | None] = SimpleQueue()
        self._full: SimpleQueue[Buffer | BaseException] = SimpleQueue()
        self._stopped = False
        for buffer in buffers:
            self.release(buffer)
        self._thread = threading.Thread(target=self._run, name="lazypipe stream", daemon=True)
        self._thread.start()

    def take(self) -> Buffer:
        """The next full buffer, once it is full; raises what stopped the thread."""
        found = self._full.get()
        if isinstance(found, BaseException):
            raise found
        self._copying.take(found)
        return found

    def release(self, buffer: Buffer) -> None:
        """Let a buffer be filled again."""
        self._copying.release(buffer)
        self._empty.put(buffer)

    def stop(self, seconds: float | None = None) -> None:
        """End the thread, after the block it is reading; wait so long for it at most."""
        self._stopped = True
        self._empty.put(None)
        if threading.current_thread() is not self._thread:  # the garbage collector may call from any
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            # What is cast to float32 may overflow there, and infinities may meet in a sum: they are looked for.
            with np.errstate(over="ignore", invalid="ignore"), self.matrix.open() as reader:
                for part in self._parts:
                    buffer = self._empty.get()
                    if buffer is None or not self._fill(reader, buffer, part):
                        return
                    self._full.put(buffer)
        except BaseException as error:
            self._full.put(error)

    def _fill(self, reader: Any, buffer: Buffer, part: Part) -> bool:
        """Whether the buffer was filled, and not stopped before."""
        copying, start = self._copying, 0
        targets, order = copying.begin(buffer)
        for rows in part.spans:
            if self._stopped:
                return False
            read_block(self.matrix, reader, rows, copying.block(buffer, start, len(rows)))
            copying.send(buffer, start, len(rows))
            if targets is not None and self.targets is not None:
                targets[start : start + len(rows)] = self.targets[rows.slice]
            start += len(rows)
        if order is not None:
            shuffle_rows(order[:start], self.seed, part.epoch, part.buffer)
        copying.finish(buffer)
        return not self._stopped


def read_block(matrix: Matrix, reader: Any, rows: Span, out: np.ndarray) -> None:
    """Fill ``out`` (len(rows), n_features) with rows of a source, dense or sparse; DataError unless all are finite."""
    columns = Span(0, matrix.shape[1])
    if matrix.sparse:
        found = reader.read_rows(rows, out.dtype)
        entries = found.data
        found.toarray(out=out)
    else:
        reader.read(rows, columns, out)
        entries = out
    # One sum tells of most blocks that they are finite.
    if out.dtype.kind != "f" or np.isfinite(np.add.reduce(entries, axis=None, dtype=np.float32)):
        return
    finite = np.isfinite(out)
    if finite.all():  # their sum alone was not
        return
    stored = out
    if matrix.dtype != out.dtype:  # was it finite before it was cast?
        if matrix.sparse:
            stored = reader.read_rows(rows, matrix.dtype).toarray()
        else:
            stored = np.empty(out.shape, matrix.dtype)
            reader.read(rows, columns, stored)
    if not np.isfinite(stored).all():
        require_finite(np.full(1, np.nan), Block(stored, rows, columns, matrix.uri))
    i, j = np.argwhere(~finite)[0].tolist()
    raise DataError(
        f"{matrix.uri}: {float(stored[i, j]):g} at row {rows.start + i:,}, column {j:,} is larger than float32 holds "
        f"({np.finfo(np.float32).max:.3g}). Divide the data by a constant first."
    )


def torch_dtype(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def empty_targets(targets: np.ndarray, n_rows: int, device: torch.device) -> Tensor:
    """Memory for targets of so many rows: int64 for classes, float32 for values."""
    dtype = torch.float32 if targets.dtype.kind == "f" else torch.int64
    return torch.empty((n_rows, *targets.shape[1:]), dtype=dtype, device=device)


def target_nbytes(targets: np.ndarray | None) -> int:
    """Bytes of a row of targets in a buffer."""
    if targets is None:
        return 0
    return (4 if targets.dtype.kind == "f" else 8) * int(np.prod(targets.shape[1:], dtype=int))
