"""The batches of a stream: every row once an epoch, the order a function of the seed, the bytes as planned."""

import re
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from lazypipe.errors import ConfigError, DataError, MemoryPlanError
from lazypipe.io import open_matrix
from lazypipe.io.row_range import row_range
from lazypipe.nets.cut import cut_rows
from lazypipe.nets.filling import Buffer
from lazypipe.nets.stream import Stream

CPU = torch.device("cpu")
DTYPES = ["uint8", "int8", "int16", "int32", "bool", "float16", "float32", "float64"]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def table(n_rows, n_features, dtype="uint8", seed=0):
    return np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 100, (n_rows, n_features)).astype(dtype)


def stream_of(source, batch_rows, *, targets=None, memory=2**30, seed=5, device=CPU, **options):
    matrix = open_matrix(source)
    targets = np.arange(matrix.shape[0]) if targets is None else targets
    return Stream(matrix, targets, batch_rows=batch_rows, memory=memory, seed=seed, device=device, **options)


def in_buffers(source, batch_rows, buffer_rows, **options):
    """A stream whose buffers hold about so many rows."""
    matrix = open_matrix(source)
    for memory in range(10_000, 2**30, 2_000):
        try:
            cut = cut_rows(matrix, batch_rows=batch_rows, memory=memory, target_nbytes=8)
        except MemoryPlanError:
            continue
        if cut.buffer_rows >= buffer_rows:
            break
    assert not cut.resident
    return stream_of(matrix, batch_rows, memory=memory, **options)


def taken(batches):
    """Copies of the batches: (rows, targets, index) each."""
    return [(batch.rows.numpy().copy(), batch.targets.numpy().copy(), batch.index) for batch in batches]


def equal(left, right):
    return len(left) == len(right) and all(
        a[2] == b[2] and np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])
        for a, b in zip(left, right, strict=True)
    )


def order_of(stream, epoch):
    return np.concatenate([targets for _, targets, _ in taken(stream.epoch(epoch))])


def reading():
    return [thread for thread in threading.enumerate() if thread.name == "lazypipe stream"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_row_comes_once_beside_its_target_whatever_the_sizes(data):
    n_rows = data.draw(st.integers(1, 3000))
    n_features = data.draw(st.integers(1, 30))
    batch_rows = data.draw(st.integers(1, n_rows))
    X = table(n_rows, n_features, data.draw(st.sampled_from(DTYPES)))
    matrix, shuffle = open_matrix(X), data.draw(st.booleans())
    whole = cut_rows(matrix, batch_rows=batch_rows, memory=2**40, target_nbytes=8, shuffle=shuffle)
    assert whole.resident
    memory = int(whole.host_nbytes * data.draw(st.floats(0, 1.2)))
    try:
        stream = stream_of(X, batch_rows, memory=memory, divide_by=7.0, shuffle=shuffle)
    except MemoryPlanError as error:
        memory = int(re.search(r"need ([\d,]+) bytes", str(error))[1].replace(",", ""))
        stream = stream_of(X, batch_rows, memory=memory, divide_by=7.0, shuffle=shuffle)
    assert stream.host_nbytes <= memory and stream.device_nbytes == 0
    assert stream.resident or stream.buffer_rows % batch_rows == 0
    n_batches = -(-n_rows // batch_rows)
    for epoch in data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=3)):
        batches = taken(stream.epoch(epoch))
        assert [index for _, _, index in batches] == list(range(n_batches)) and stream.n_batches == n_batches
        assert all(len(rows) == batch_rows for rows, _, _ in batches[:-1])
        order = np.concatenate([targets for _, targets, _ in batches])
        assert np.array_equal(np.sort(order), np.arange(n_rows))
        assert shuffle or np.array_equal(order, np.arange(n_rows))
        rows = np.concatenate([rows for rows, _, _ in batches])
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, X[order].astype(np.float32) / np.float32(7))
        first = data.draw(st.integers(0, n_batches))
        assert equal(taken(stream.epoch(epoch, first)), batches[first:])
    stream.close()
    assert not reading()


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("buffer_rows", [None, 200])
def test_an_epoch_is_a_function_of_seed_index_and_first_batch(buffer_rows, shuffle):
    X = table(1003, 4)

    def opened(seed):
        options = {"seed": seed, "shuffle": shuffle}
        return stream_of(X, 10, **options) if buffer_rows is None else in_buffers(X, 10, buffer_rows, **options)

    one = opened(1)
    assert one.resident == (buffer_rows is None)
    third = taken(one.epoch(3))
    for _ in one.epoch(4):
        break
    assert equal(taken(one.epoch(3)), third)
    for first in (0, 1, 19, 20, 21, 57, 100, 101):
        assert equal(taken(opened(1).epoch(3, first)), third[first:])
    again, other = opened(1), opened(2)
    assert again.identity() == one.identity() != other.identity()
    assert np.array_equal(order_of(again, 3), order_of(one, 3))
    for left, right in ((order_of(one, 4), order_of(one, 3)), (order_of(other, 3), order_of(one, 3))):
        assert np.array_equal(left, right) != shuffle


def test_a_file_sorted_by_class_is_mixed_by_buffers_of_a_tenth_of_it(tmp_path):
    n_classes, n_rows, batch_rows = 10, 60_000, 200
    X, y = table(n_rows, 64), np.repeat(np.arange(n_classes), n_rows // n_classes)
    np.save(tmp_path / "x.npy", X)
    matrix = open_matrix(tmp_path / "x.npy")
    buffers = 2 * (n_rows // 10) * (64 + 8 + 4)
    stream = stream_of(matrix, batch_rows, targets=y, memory=buffers + matrix.reader_nbytes(1, 64) + 2**17)
    assert 0.08 < stream.buffer_rows / n_rows < 0.12
    counts = np.array([np.bincount(t, minlength=n_classes) for _, t, _ in taken(stream.epoch(0))])
    # Of 16 blocks or more a buffer, the share of a class has a standard deviation of 0.3 / 4 at most.
    assert stream.buffer_rows >= 16 * stream.cut.block_rows
    assert np.abs(counts.mean(axis=0) - batch_rows / n_classes).max() < 1e-9
    assert (counts > 0).mean() > 0.8 and counts.max() < batch_rows / 2
    assert np.sqrt(np.mean((counts / batch_rows - 0.1) ** 2)) < np.sqrt(0.075**2 + 0.3**2 / batch_rows)


def test_bytes_are_those_told(tmp_path):
    X = table(20_000, 50, "int16")
    np.save(tmp_path / "x.npy", X)
    for memory in (6 * 2**20, 2**24):
        stream = stream_of(tmp_path / "x.npy", 64, memory=memory)
        assert stream.resident == (memory == 2**24)
        next(stream.epoch(0))
        held = stream._memory
        tensors = [tensor for buffer in held.buffers for tensor in buffer.tensors]
        tensors += [held.rows, held.held, held.targets]
        nbytes = sum(tensor.nbytes for tensor in tensors) + stream.matrix.reader_nbytes(stream.cut.read_rows, 50)
        assert 0.99 * stream.host_nbytes < nbytes <= stream.host_nbytes <= memory
        assert {buffer.rows.dtype for buffer in held.buffers} == {torch.int16}


def test_bytes_of_a_device_are_told_beside_those_of_the_host():
    matrix = open_matrix(table(100_000, 100))
    here = cut_rows(matrix, batch_rows=100, memory=2**22, target_nbytes=8)
    there = cut_rows(matrix, batch_rows=100, memory=2**22, target_nbytes=8, on_host=False)
    assert (here.device_nbytes, there.buffer_rows >= here.buffer_rows) == (0, True)
    assert max(here.host_nbytes, there.host_nbytes, there.device_nbytes) <= 2**22
    assert there.device_nbytes > 0.9 * 2**22 and there.host_nbytes < 2**22 / 4


def test_blocks_are_long_where_buffers_are_and_few_whatever_the_file():
    class Vast:
        shape, dtype, sparse, uri = (10**10, 784), np.dtype("uint8"), False, "vast"

        def reader_nbytes(self, n_rows, n_columns):
            return 0

    cut = cut_rows(Vast(), batch_rows=128, memory=2**33)
    assert cut.n_blocks <= 2**18 and cut.buffer_rows > 50 * cut.block_rows
    cut = cut_rows(open_matrix(np.empty((10**6, 784), np.uint8)), batch_rows=128, memory=2**27)
    assert cut.block_rows * 784 > 2**18 - 784 and cut.buffer_rows > 200 * cut.block_rows


@pytest.mark.parametrize("how", ["close", "exception", "dropped", "closed batches", "another"])
def test_the_thread_ends_with_its_consumer(how):
    stream = in_buffers(table(3000, 10), 10, 300)
    batches = stream.epoch(0)
    next(batches)
    assert len(reading()) == 1
    if how == "close":
        stream.close()
        with pytest.raises(RuntimeError, match="closed"):
            next(batches)
    elif how == "exception":
        del batches
        with pytest.raises(ZeroDivisionError):
            failing(stream)
    elif how == "dropped":
        del batches
    elif how == "closed batches":
        batches.close()
    else:
        others = stream.epoch(1)
        next(others)
        assert len(reading()) == 1
        with pytest.raises(RuntimeError, match="another epoch"):
            next(batches)
        assert len(list(others)) == 299
        del stream, others
    assert not reading()


def failing(stream):
    for _ in stream.epoch(0):
        1 / 0


def test_it_reads_ahead_into_the_next_epoch_and_gives_the_memory_back():
    stream = in_buffers(table(3000, 10), 10, 300)
    first = order_of(stream, 0)
    (thread,) = reading()
    second = order_of(stream, 1)
    assert reading() == [thread]  # it has not begun anew
    stream.close()
    assert not reading() and stream._memory is None
    assert np.array_equal(order_of(stream, 1), second) and not np.array_equal(first, second)
    stream.close()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (-np.inf, "infinity")])
def test_what_is_not_finite_is_named(dtype, value, what):
    X = table(2000, 10, dtype)
    X[1234, 7] = value
    stream = in_buffers(X, 10, 300)
    with pytest.raises(DataError, match=rf"<array>: {what} at row 1,234, column 7 "):
        list(stream.epoch(0))
    assert not reading()
    with pytest.raises(DataError, match=rf"\[1000:\]: {what} at row 234, column 7 "):
        list(stream_of(row_range(open_matrix(X), 1000, 2000), 10).epoch(0))


def test_what_float32_cannot_hold_is_named_and_large_sums_are_not():
    X = np.full((50, 10), 3e38, np.float32)
    assert len(list(stream_of(X, 10).epoch(0))) == 5
    X = table(50, 10, "float64")
    X[3, 4] = -1e300
    with pytest.raises(DataError, match=r"-1e\+300 at row 3, column 4 is larger than float32 holds"):
        list(stream_of(X, 10).epoch(0))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_sparse_rows_come_as_dense_ones(tmp_path, dtype):
    X = table(900, 30, dtype) * (np.random.default_rng(1).random((900, 30)) < 0.2).astype(dtype)
    sparse.save_npz(tmp_path / "x.npz", sparse.csr_array(X))
    matrix = open_matrix(tmp_path / "x.npz")
    # Two buffers of a third, their reader, and rows on their way.
    nbytes = 2 * 300 * (30 * 4 + 12) + matrix.reader_nbytes(64, 30) + matrix.block_nbytes(64, 30, 4)
    stream = stream_of(matrix, 20, memory=nbytes + 2**13)
    assert not stream.resident
    for rows, targets, _ in taken(stream.epoch(0)):
        np.testing.assert_array_equal(rows, X[targets].astype(np.float32))
    stream.close()
    if dtype != "int16":
        X[700, 3] = np.inf
        sparse.save_npz(tmp_path / "y.npz", sparse.csr_array(X))
        with pytest.raises(DataError, match=r"infinity at row 700, column 3 "):
            list(stream_of(tmp_path / "y.npz", 20).epoch(0))


def test_a_range_of_rows_and_targets_of_values():
    X, y = table(800, 10), np.random.default_rng(3).normal(size=(500, 2))
    part = row_range(open_matrix(X), 200, 700)
    for stream in (in_buffers(part, 10, 100, targets=y), stream_of(part, 10, targets=y)):
        found = taken(stream.epoch(0))
        wanted = {(*row, *value) for row, value in zip(X[200:700].tolist(), y.astype(np.float32).tolist(), strict=True)}
        rows, targets = (np.concatenate([batch[i] for batch in found]) for i in (0, 1))
        assert targets.dtype == np.float32
        assert {(*r, *t) for r, t in zip(rows.tolist(), targets.tolist(), strict=True)} == wanted
        stream.close()


def test_no_targets_and_the_time_waited():
    stream = Stream(open_matrix(table(70, 3)), None, batch_rows=16, memory=2**20, seed=0, device=CPU)
    assert [(len(b.rows), b.targets) for b in stream.epoch(0)] == [(16, None)] * 4 + [(6, None)]
    assert stream.waited > 0


def test_what_stops_the_reading_comes_out_as_it_is(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, table(3000, 10))
    matrix = open_matrix(path)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(DataError, match="has become shorter"):
        list(stream_of(matrix, 10).epoch(0))
    assert not reading()


def test_refusals():
    X = table(100, 5)
    with pytest.raises(ConfigError, match=r"batch_size: 101 is more than the 100 rows of <array>\. Give 100 at most"):
        stream_of(X, 101)
    with pytest.raises(ConfigError, match="batch_size: 0"):
        stream_of(X, 0)
    with pytest.raises(DataError, match=r"<array>: has 100 rows, but there are 99 targets"):
        stream_of(X, 10, targets=np.arange(99))
    with pytest.raises(MemoryPlanError, match=r"two buffers of a batch of 10 rows.* need [\d,]+ bytes"):
        stream_of(X, 10, memory=100)
    assert [len(b.rows) for b in stream_of(X, 1000, shuffle=False).epoch(0)] == [100]


def test_a_batch_that_is_changed_changes_no_row():
    stream = stream_of(table(100, 5, "float32"), 10, shuffle=False)
    before = taken(stream.epoch(0))
    for batch in stream.epoch(0):
        batch.rows.zero_()
        batch.targets.zero_()
    assert equal(taken(stream.epoch(0)), before)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("buffer_rows", [None, 500])
def test_batches_on_a_device_are_those_on_the_host(buffer_rows):
    X, device = table(5000, 20), torch.device("cuda")
    matrix = open_matrix(X)
    whole = cut_rows(matrix, batch_rows=10, memory=2**30, target_nbytes=8, on_host=False)
    memory = 2**30 if buffer_rows is None else whole.device_nbytes // 4
    stream = stream_of(matrix, 10, memory=memory, device=device)
    assert stream.resident == (buffer_rows is None)
    for epoch in range(3):
        seen = []
        for batch in stream.epoch(epoch):
            assert batch.rows.device.type == "cuda"
            targets = batch.targets.cpu().numpy()
            np.testing.assert_array_equal(batch.rows.cpu().numpy(), X[targets].astype(np.float32))
            seen.append(targets)
        assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(5000))
    assert isinstance(stream._memory.buffers[0], Buffer)
    stream.close()
