"""How rows are cut for training: batches, buffers and blocks, and their order, from metadata and a seed alone.

Every epoch the blocks of the file are put in a fresh random order, end to end; so many rows of that line are a
buffer, which is shuffled whole and emptied into batches. A block that lies across the end of a buffer is read in two
parts. So only the last batch is short, whatever the sizes, and any batch of any epoch is found without those before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lazypipe.blocks import Span
from lazypipe.errors import ConfigError, MemoryPlanError
from lazypipe.io.matrix import Matrix
from lazypipe.sizes import KIB, show_bytes

BLOCK_NBYTES = 256 * KIB  # read fast
LEAST_BLOCK_NBYTES = 4 * KIB  # where memory is so short that larger blocks would mix too little
MIXED_BLOCKS = 16  # blocks a buffer at least, where rows allow
MOST_BLOCKS = 2**18  # of a file: they are put in order in memory
BLOCK_ORDER_NBYTES = 24  # a block, while they are put in order
ROW_ORDER_NBYTES = 4
MOST_BUFFER_ROWS = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Cut:
    """The sizes of a stream and the bytes it takes, ``host_nbytes`` and ``device_nbytes``.

    Where the device is the host, all of it is on the host. ``dtype`` is that of the entries in the buffers.
    """

    n_rows: int
    n_features: int
    dtype: np.dtype
    target_nbytes: int  # a row
    batch_rows: int
    buffer_rows: int
    block_rows: int
    on_host: bool
    shuffle: bool
    reader_nbytes: int  # beside a block in its buffer

    @property
    def n_batches(self) -> int:
        """Batches an epoch; the last one may be shorter."""
        return -(-self.n_rows // self.batch_rows)

    @property
    def n_buffers(self) -> int:
        """Buffers filled in an epoch."""
        return -(-self.n_rows // self.buffer_rows)

    @property
    def n_blocks(self) -> int:
        return -(-self.n_rows // self.block_rows)

    @property
    def buffer_batches(self) -> int:
        """Batches a buffer."""
        return -(-self.buffer_rows // self.batch_rows)

    @property
    def resident(self) -> bool:
        """Whether one buffer holds all rows, which are then read once."""
        return self.buffer_rows == self.n_rows

    @property
    def read_rows(self) -> int:
        """Rows read at once, at most."""
        return min(self.block_rows, self.buffer_rows)

    @property
    def row_nbytes(self) -> int:
        return self.n_features * self.dtype.itemsize

    @property
    def _buffers_nbytes(self) -> int:
        """Both buffers, or the one there is, and a batch on its way out."""
        row = self.row_nbytes + self.target_nbytes + ROW_ORDER_NBYTES * self.shuffle
        batch = 4 * self.n_features + self.target_nbytes
        batch += self.row_nbytes if self.dtype != np.float32 else 0
        return row * self.buffer_rows * min(self.n_buffers, 2) + batch * self.batch_rows

    @property
    def host_nbytes(self) -> int:
        nbytes = self.reader_nbytes + BLOCK_ORDER_NBYTES * self.n_blocks
        if self.on_host:
            return nbytes + self._buffers_nbytes
        staged = 2 * self.row_nbytes * self.read_rows
        return nbytes + staged + (self.target_nbytes + ROW_ORDER_NBYTES * self.shuffle) * self.buffer_rows

    @property
    def device_nbytes(self) -> int:
        return 0 if self.on_host else self._buffers_nbytes


def cut_rows(
    matrix: Matrix, *, batch_rows: int, memory: int, target_nbytes: int = 0, on_host: bool = True, shuffle: bool = True
) -> Cut:
    """The cut of ``matrix`` whose host and device bytes are ``memory`` at most, each: all rows, or two buffers.

    ``target_nbytes`` are those of a row: 8 a class, 4 a value. Raises ConfigError for a batch of more rows than there
    are to shuffle, and MemoryPlanError where two buffers of one batch do not fit.
    """
    n_rows = matrix.shape[0]
    if batch_rows < 1:
        raise ConfigError(f"batch_size: {batch_rows:,} is no number of rows. Give 1 at least, or None for all rows.")
    if batch_rows > n_rows and shuffle:
        raise ConfigError(
            f"batch_size: {batch_rows:,} is more than the {n_rows:,} rows of {matrix.uri}. Give {n_rows:,} at most, "
            f"or all (None) of them."
        )
    batch_rows = min(batch_rows, n_rows)

    def with_buffer(n: int) -> Cut:
        block = _block_rows(matrix, n if shuffle else n_rows)
        read = min(block, n)
        reader = matrix.reader_nbytes(read, matrix.shape[1])
        if matrix.sparse:
            reader += matrix.block_nbytes(read, matrix.shape[1], dtype.itemsize)
        return Cut(*matrix.shape, dtype, target_nbytes, batch_rows, n, block, on_host, shuffle, reader)

    dtype = held_dtype(matrix)
    whole = with_buffer(n_rows)
    if _needed(whole) <= memory and n_rows <= MOST_BUFFER_ROWS:
        return whole
    least, most = 0, min(-(-whole.n_batches // 2), MOST_BUFFER_ROWS // batch_rows)
    while least < most:  # the most batches a buffer that fit
        middle = -(-(least + most) // 2)
        if _needed(with_buffer(middle * batch_rows)) <= memory:
            least = middle
        else:
            most = middle - 1
    if least == 0:
        needed = _needed(whole) if batch_rows == n_rows else min(_needed(whole), _needed(with_buffer(batch_rows)))
        raise MemoryPlanError(
            f"{matrix.uri}: two buffers of a batch of {batch_rows:,} rows, and what reads them, need {needed:,} bytes "
            f"({show_bytes(needed)}) at least; there are {memory:,} ({show_bytes(memory)}). Raise memory, or lower "
            f"batch_size."
        )
    n_buffers = -(-whole.n_batches // least)
    return with_buffer(-(-whole.n_batches // n_buffers) * batch_rows)  # all of about one length


def held_dtype(matrix: Matrix) -> np.dtype:
    """The dtype of entries in the buffers: the source's own, float32 where that is wider, uint8 for bool."""
    dtype = matrix.dtype
    if dtype == np.bool_:
        return np.dtype(np.uint8)
    if matrix.sparse and dtype == np.float16:  # which scipy does not compute with
        return np.dtype(np.float32)
    return dtype if np.can_cast(dtype, np.float32, "safe") else np.dtype(np.float32)


def _needed(cut: Cut) -> int:
    return max(cut.host_nbytes, cut.device_nbytes)


def _block_rows(matrix: Matrix, buffer_rows: int) -> int:
    """Rows a block: so many blocks a buffer that it mixes many places of the file, each long enough to be read fast."""
    n_rows, n_features = matrix.shape
    row_nbytes = n_features * held_dtype(matrix).itemsize
    wanted, least = BLOCK_NBYTES // row_nbytes, LEAST_BLOCK_NBYTES // row_nbytes
    if buffer_rows < n_rows:
        wanted = min(wanted, buffer_rows // MIXED_BLOCKS)
    return min(max(wanted, least, -(-n_rows // MOST_BLOCKS)), n_rows)


class Part(NamedTuple):
    """What fills a buffer: which buffer of which epoch, and rows of the source in the order of the file."""

    epoch: int
    buffer: int
    spans: tuple[Span, ...]


def parts(cut: Cut, seed: int, epoch: int, buffer: int) -> Iterator[Part]:
    """The parts from one ``buffer`` of an epoch on; shuffled ones go on with the next epochs, without end."""
    while True:
        order = block_order(cut, seed, epoch)
        while buffer < cut.n_buffers:
            yield Part(epoch, buffer, order.spans(buffer * cut.buffer_rows, (buffer + 1) * cut.buffer_rows))
            buffer += 1
        if not cut.shuffle or cut.resident:
            return
        epoch, buffer = epoch + 1, 0


@dataclass(frozen=True)
class BlockOrder:
    """The blocks of a file end to end: block ``order[i]`` is at ``edges[i]:edges[i + 1]`` of that line."""

    block_rows: int
    order: np.ndarray
    edges: np.ndarray

    def spans(self, start: int, stop: int) -> tuple[Span, ...]:
        """The rows of the file that lie in a part of the line, by blocks, in the order of the file."""
        stop = min(stop, int(self.edges[-1]))
        first = int(np.searchsorted(self.edges, start, side="right")) - 1
        last = int(np.searchsorted(self.edges, stop, side="left"))
        found = []
        for i in range(first, last):
            row = int(self.order[i]) * self.block_rows - int(self.edges[i])
            found.append(Span(row + max(start, int(self.edges[i])), row + min(stop, int(self.edges[i + 1]))))
        return tuple(sorted(found))


def block_order(cut: Cut, seed: int, epoch: int) -> BlockOrder:
    """The order of the blocks in an epoch; that of the file where rows are not shuffled, or all are in one buffer."""
    order = np.arange(cut.n_blocks)
    if cut.shuffle and not cut.resident:
        np.random.default_rng([seed, epoch]).shuffle(order)
    edges = np.full(cut.n_blocks + 1, cut.block_rows)
    edges[0] = 0
    edges[1:][order == cut.n_blocks - 1] = cut.n_rows - (cut.n_blocks - 1) * cut.block_rows
    return BlockOrder(cut.block_rows, order, np.cumsum(edges, out=edges))


def shuffle_rows(order: np.ndarray, seed: int, epoch: int, buffer: int) -> None:
    """Fill ``order`` (n,) int32 with the order in which the rows of a buffer are taken."""
    order[:] = np.arange(len(order), dtype=order.dtype)
    # NumPy takes [seed, epoch, 0] for [seed, epoch], which orders the blocks.
    np.random.default_rng([seed, epoch, 1 + buffer]).shuffle(order)
