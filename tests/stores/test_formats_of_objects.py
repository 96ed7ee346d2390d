"""Every format read from a store gives what the file on disk gives, and no more is downloaded than is asked for."""

import pickle

import numpy as np
import pytest
import recording_writers
import sparse_writers
import spike_writers
from matrix_writers import WRITERS

from lazypipe.blocks import Span
from lazypipe.io import Matrix, open_matrix
from lazypipe.io.labels import read_labels
from lazypipe.io.raw_csr import RawCsrMatrix
from lazypipe.io.raw_rows import RawRowsMatrix
from lazypipe.io.recordings import open_recording
from lazypipe.io.spikes import read_spikes

RECORDINGS = [name for name in recording_writers.WRITERS if not name.startswith("array")]


def values_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def reopened(source: str) -> Matrix:
    return pickle.loads(pickle.dumps(open_matrix(source)))


def whole(matrix, dtype: str = "float64") -> np.ndarray:
    out = np.empty(matrix.shape, dtype)
    with matrix.open() as reader:
        reader.read(Span(0, matrix.shape[0]), Span(0, matrix.shape[1]), out)
    return out


@pytest.mark.parametrize("format", WRITERS)
def test_a_matrix(format, s3, tmp_path):
    values = values_of(13, 7)
    path = WRITERS[format](tmp_path, values)
    local, remote = open_matrix(path), reopened(s3.put(path))
    assert (remote.shape, remote.dtype, type(remote)) == (local.shape, local.dtype, type(local))
    assert remote.mapped_nbytes == 0
    assert (remote.reads_columns, remote.panel_columns) == (local.reads_columns, local.panel_columns)
    assert [piece.rows for piece in remote.pieces()] == [piece.rows for piece in local.pieces()]
    np.testing.assert_array_equal(whole(remote), values)
    with remote.open() as reader:
        out = np.empty((5, 3), np.float32)
        reader.read(Span(4, 9), Span(2, 5), out)
        np.testing.assert_array_equal(out, values[4:9, 2:5])
        assert reader.view(Span(0, 3), np.dtype(np.float32)) is None


@pytest.mark.parametrize("format", sparse_writers.SPARSE_WRITERS)
def test_sparse_rows(format, s3, tmp_path):
    rows = sparse_writers.random_rows((23, 9))
    path = sparse_writers.SPARSE_WRITERS[format](tmp_path, rows)
    local, remote = open_matrix(path), reopened(s3.put(path))
    assert (remote.shape, remote.dtype, remote.nbytes) == (local.shape, local.dtype, local.nbytes)
    assert isinstance(remote, RawCsrMatrix) == isinstance(local, RawCsrMatrix)
    with remote.open() as reader:
        for part in (Span(0, 23), Span(5, 11)):
            np.testing.assert_array_equal(reader.read_rows(part, rows.dtype).toarray(), rows.toarray()[part.slice])


@pytest.mark.parametrize("format", RECORDINGS)
def test_a_recording(format, s3, tmp_path):
    write, dims = recording_writers.WRITERS[format]
    values = recording_writers.counts(*(13, 4, 3)[: dims[-1]])
    path, options = write(tmp_path, values)
    local, remote = open_recording(path, **options), open_recording(s3.put(path), **options)
    assert (remote.shape, remote.sampling_rate, remote.unit) == (local.shape, local.sampling_rate, local.unit)
    np.testing.assert_array_equal(recording_writers.all_of(remote), recording_writers.all_of(local))
    remote.matrix.fingerprint()


def test_a_recording_of_spikeglx_and_one_of_several_objects(s3, tmp_path):
    values = recording_writers.counts(40, 4)
    lines = recording_writers.probe(3, [500] * 3, [250] * 3, 3, 0, "0:2,6")
    path = recording_writers.spikeglx(tmp_path / "a.ap.bin", values, lines)
    s3.put(path.with_suffix(".meta"))
    address = s3.put(path)
    local, remote = open_recording(path), open_recording(address)
    assert remote.unit == "µV"
    np.testing.assert_array_equal(recording_writers.all_of(remote), recording_writers.all_of(local))
    both = open_recording([address, address], starts=[0, 100])
    assert both.n_samples == 80
    np.testing.assert_array_equal(recording_writers.all_of(both)[40:], recording_writers.all_of(local))


@pytest.mark.parametrize("format", spike_writers.MANY)
def test_spikes_of_units(format, s3, tmp_path):
    write, options = spike_writers.MANY[format]
    random = np.random.default_rng(1)
    samples, units = np.sort(random.integers(0, 5000, 60)), random.integers(1, 4, 60)
    path = write(tmp_path, samples, units)
    local, remote = read_spikes(path, **options), read_spikes(s3.put(path), **options)
    assert list(remote) == list(local)
    for unit in local:
        np.testing.assert_array_equal(remote[unit], local[unit])


@pytest.mark.parametrize("format", spike_writers.ONE)
def test_spikes_of_one_unit(format, s3, tmp_path):
    write, options = spike_writers.ONE[format]
    path = write(tmp_path, np.array([3, 4, 10, 500]))
    local, remote = read_spikes(path, **options), read_spikes(s3.put(path), **options)
    assert list(remote) == list(local)
    np.testing.assert_array_equal(remote[0], local[0])


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".txt", ".parquet", ".arrow"])
def test_labels(suffix, s3, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from matrix_writers import write_ipc

    labels, path = np.array([3, 1, 4, 1, 5]), tmp_path / f"y{suffix}"
    writers = {
        ".npy": lambda: np.save(path, labels),
        ".npz": lambda: np.savez(path, y=labels),
        ".parquet": lambda: pq.write_table(pa.table({"y": labels}), path),
        ".arrow": lambda: write_ipc(path, pa.table({"y": labels}), 2),
    }
    writers.get(suffix, lambda: path.write_text("\n".join(map(str, labels)) + "\n"))()
    np.testing.assert_array_equal(read_labels(s3.put(path), 5), labels)


@pytest.mark.parametrize("format", ["npy", "arrow", "parquet"])
def test_opening_reads_metadata_alone(format, s3, tmp_path):
    path = WRITERS[format](tmp_path, values_of(3000, 300))
    address = s3.put(path)
    open_matrix(address).fingerprint()
    assert s3.downloaded() < 1e6


@pytest.mark.parametrize("format", ["npy", "arrow", "zarr-panels"])
def test_rows_and_stripes_are_read_in_ranges(format, s3, tmp_path):
    values = values_of(400, 9000)
    matrix = open_matrix(
        s3.put(WRITERS[format](tmp_path, values) if format != "zarr-panels" else panels(tmp_path, values))
    )
    stripe = Span(4500, 6000)
    s3.forget()
    with matrix.open() as reader:
        out = np.empty((400, len(stripe)), np.float32)
        reader.read(Span(0, 400), stripe, out)
    np.testing.assert_array_equal(out, values[:, stripe.slice])
    assert out.nbytes <= s3.downloaded() <= 1.2 * out.nbytes


def panels(folder, values):
    from lazypipe.io.convert import convert

    return convert(values, folder / "p.zarr", panel_columns=1500, memory="256MiB")


def test_uncompressed_arrow_is_read_by_offsets_as_on_disk(s3, tmp_path):
    for format in ("arrow", "arrow-tensor", "arrow-sliced", "arrow-converted"):
        path = WRITERS[format](tmp_path, values_of(20, 6))
        local, remote = open_matrix(path), open_matrix(s3.put(path))
        assert isinstance(remote, RawRowsMatrix)
        assert [(s.offset, s.n_rows) for s in remote.segments] == [(s.offset, s.n_rows) for s in local.segments]
