"""Stores that refuse, break, hang or change under a run: one line within ten seconds, or the right answer."""

import socket
import time

import numpy as np
import pytest
from object_server import BUCKET

import lazypipe as lp
from lazypipe.blocks import Span
from lazypipe.errors import DataError, LazypipeError
from lazypipe.io import open_matrix
from lazypipe.io.convert import convert
from lazypipe.stores import StoreError
from lazypipe.stores.filesystems import FILE_SYSTEMS


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(size=(500, 40)).astype(np.float32))
    return path


@pytest.fixture
def elsewhere(monkeypatch):
    """Points the environment at another endpoint."""

    def point(**environment: str) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        FILE_SYSTEMS.forget()

    yield point
    FILE_SYSTEMS.forget()


def refused(call) -> str:
    """The one line of an error that has to come within ten seconds (and some, on a busy machine)."""
    began = time.monotonic()
    with pytest.raises(LazypipeError) as told:
        call()
    assert time.monotonic() - began < 15
    assert "\n" not in str(told.value)
    return str(told.value)


def test_no_such_object_and_no_such_bucket(s3):
    for address in ("s3://bucket/none.npy", "s3://nobucket/m.npy"):
        assert refused(lambda: open_matrix(address)) == f"{address}: no such object or bucket. Check the address."  # noqa: B023
    assert "s3://nobucket/m.npy: cannot be written: no such bucket" in refused(
        lambda: convert(np.eye(9, 5), "s3://nobucket/m.npy")
    )


def test_wrong_credentials(s3, rows):
    address = s3.put(rows)
    s3.fail = lambda request: 403
    said = refused(lambda: open_matrix(address))
    assert said.startswith(f"{address}: cannot be read: the store does not allow it (")
    assert "credentials in the environment" in said


def test_no_credentials(s3, rows, elsewhere, monkeypatch):
    address = s3.put(rows)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    elsewhere()
    assert "no credentials (Unable to locate credentials). Set those of the store" in refused(
        lambda: open_matrix(address)
    )


def test_nobody_listens(s3, elsewhere):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    elsewhere(AWS_ENDPOINT_URL=f"http://name:a-password@127.0.0.1:{port}")
    said = refused(lambda: open_matrix("s3://bucket/m.npy"))
    assert "the store does not answer" in said and "AWS_ENDPOINT_URL" in said and "a-password" not in said


def test_a_store_that_hangs(s3, elsewhere):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        elsewhere(AWS_ENDPOINT_URL=f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "the store does not answer" in refused(lambda: open_matrix("s3://bucket/m.npy"))


def test_errors_that_pass_are_waited_for(s3, rows, serial_engine):
    address = s3.put(rows)
    seen: dict[str, int] = {}

    def every_first_time(request):
        key = f"{request['REQUEST_METHOD']} {request.get('HTTP_RANGE')}"
        seen[key] = seen.get(key, 0) + 1
        return (503, 500)[len(seen) % 2] if seen[key] == 1 else None

    matrix = open_matrix(address)
    s3.fail = every_first_time
    found = lp.covariance(matrix, engine=serial_engine)
    assert any(r.status in (500, 503) for r in s3.requests)
    np.testing.assert_array_equal(found.covariance, lp.covariance(rows, engine=serial_engine).covariance)


@pytest.mark.parametrize("same_size", [True, False])
def test_an_object_that_is_written_again_meanwhile_is_refused(s3, rows, same_size):
    address = s3.put(rows)
    matrix = open_matrix(address)
    out = np.empty((100, 40), np.float32)
    with matrix.open() as reader:
        reader.read(Span(0, 100), Span(0, 40), out)
        raw = bytearray(rows.read_bytes())
        raw[-1] ^= 1
        s3.client.put_object(Bucket=BUCKET, Key="rows.npy", Body=bytes(raw if same_size else raw[:60_000]))
        with pytest.raises(
            StoreError, match=r"^s3://bucket/rows.npy: was written again, or deleted, while it was read"
        ):
            reader.read(Span(300, 400), Span(0, 40), out)


def test_an_object_that_is_deleted_meanwhile_is_refused(s3, rows):
    matrix = open_matrix(s3.put(rows))
    s3.client.delete_object(Bucket=BUCKET, Key="rows.npy")
    with pytest.raises(StoreError, match="no such object"), matrix.open() as reader:
        reader.read(Span(0, 1), Span(0, 40), np.empty((1, 40), np.float32))


def test_the_fingerprint_goes_by_the_tag(s3, rows):
    address = s3.put(rows)
    first = open_matrix(address).fingerprint()
    assert s3.put(rows) == address and open_matrix(address).fingerprint() == first
    raw = bytearray(rows.read_bytes())
    raw[-1] ^= 1
    s3.client.put_object(Bucket=BUCKET, Key="rows.npy", Body=bytes(raw))
    assert open_matrix(address).fingerprint() != first


def test_a_state_trusts_objects_as_they_were_and_reads_others(s3, rows, tmp_path, serial_engine):
    values = np.load(rows)
    address, state = s3.put(rows), tmp_path / "state"
    lp.covariance(address, state=state, engine=serial_engine)
    s3.forget()
    lp.covariance(address, state=state, engine=serial_engine)
    assert s3.downloaded() <= 2**16  # the head of the file
    more = np.concatenate([values, values[:77] + 1])
    np.save(rows, more)
    s3.put(rows)
    grown = lp.covariance(address, state=state, engine=serial_engine)
    assert grown.n_rows == 577
    np.testing.assert_allclose(grown.covariance, np.cov(more.T), atol=1e-5)
    more[3] += 1
    np.save(rows, more)
    s3.put(rows)
    with pytest.raises(DataError, match="s3://bucket/rows.npy"):
        lp.covariance(address, state=state, engine=serial_engine)


def test_damaged_objects_are_refused_as_damaged_files_are(s3, tmp_path):
    for name in ("m.npy", "m.parquet", "m.arrow", "m.npz"):
        (tmp_path / name).write_bytes(b"nonsense" * 40)
        assert refused(lambda: open_matrix(s3.put(tmp_path / name))).startswith(f"s3://bucket/{name}: ")  # noqa: B023


@pytest.mark.parametrize("name", ["m.parquet", "m.zarr", "m.h5"])
def test_a_store_that_fails_is_not_taken_for_a_damaged_file(name, s3, tmp_path):
    import h5py
    import pyarrow as pa
    import pyarrow.parquet as pq
    import zarr

    values = np.random.default_rng(0).normal(size=(3000, 60))
    path = tmp_path / name
    if name == "m.parquet":
        pq.write_table(pa.table({f"x{j}": values[:, j] for j in range(60)}), path)
    elif name == "m.zarr":
        zarr.create_array(path, data=values, chunks=(500, 60))
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=values, chunks=(500, 60), compression="gzip").attrs["sampling_rate"] = 1.0
    address = s3.put(path)
    matrix = lp.open_recording(address).matrix if name == "m.h5" else open_matrix(address)
    s3.fail = lambda request: 403
    with pytest.raises(StoreError, match="the store does not allow it"), matrix.open() as reader:
        reader.read(Span(0, 3000), Span(0, 60), np.empty((3000, 60)))
