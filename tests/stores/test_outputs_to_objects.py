"""What is written to a store is there whole, or is no result; what is read back is what was written."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from object_server import BUCKET

import lazypipe as lp
from lazypipe.atomic import replacing
from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.convert import convert
from lazypipe.io.generate import generate
from lazypipe.results import result_folder, save_result
from lazypipe.stores import StoreError, path_of
from lazypipe.stores.uploads import MARK


@pytest.fixture(autouse=True)
def staging(tmp_path, monkeypatch):
    """A temporary folder of its own, which every test has to leave empty."""
    folder = tmp_path / "staging"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    left = {place for place in folder.iterdir() if "lazypipe" in place.name}
    assert not {place.name for place in left if not place.name.startswith("lazypipe-kept-")}


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, (np.random.default_rng(0).normal(size=(60, 12)) * np.arange(12, 0, -1)).astype(np.float32))
    return path


def address(name: str) -> str:
    return f"s3://{BUCKET}/{name}"


def save(out: str, overwrite: bool = False, **arrays: np.ndarray) -> None:
    save_result(result_folder(out, "pca", overwrite), overwrite, {"job": "pca"}, arrays, {})


def test_a_result_folder_has_its_record_last(s3):
    save(address("r"), components=np.eye(3), mean=np.zeros(3))
    assert s3.keys("r/") == ["r/components.npy", "r/mean.npy", "r/result.json"]
    written = [r.path.removeprefix("/bucket/r/") for r in s3.requests if r.method == "PUT"]
    assert written[0] == MARK and written[-1] == "result.json"


def test_a_result_is_replaced_only_when_told_and_wholly(s3):
    save(address("r"), components=np.eye(3), old=np.zeros(3))
    with pytest.raises(DataError, match=r"s3://bucket/r: exists\. Pass --overwrite"):
        save(address("r"), components=np.eye(2))
    save(address("r"), overwrite=True, components=np.eye(2))
    assert s3.keys("r/") == ["r/components.npy", "r/result.json"]


def test_other_objects_are_not_replaced(s3, rows):
    s3.put(rows, "data/rows.npy")
    with pytest.raises(DataError, match="holds no result.json"):
        result_folder(address("data"), "pca", True)
    with pytest.raises(DataError, match="exists"):
        result_folder(address("data"), "pca", False)


def test_a_failed_upload_leaves_no_result_and_no_rest(s3):
    s3.fail = lambda request: (
        403 if request["PATH_INFO"].endswith("mean.npy") and request["REQUEST_METHOD"] == "PUT" else None
    )
    refused = r"s3://bucket/r: cannot be written: the store does not allow it .* It is kept in "
    with pytest.raises(StoreError, match=refused) as told:
        save(address("r"), components=np.eye(3), mean=np.zeros(3))
    kept = Path(str(told.value).partition("It is kept in ")[2].rstrip("."))
    assert sorted(file.name for file in kept.iterdir()) == ["components.npy", "mean.npy", "result.json"]
    s3.forget()
    assert s3.keys("r/") == []
    save(address("r"), components=np.eye(3), mean=np.zeros(3))
    assert "r/result.json" in s3.keys("r/")


def test_what_a_killed_upload_left_is_no_result_and_is_overwritten(s3, tmp_path):
    s3.client.put_object(Bucket=BUCKET, Key=f"r/{MARK}", Body=b"")
    s3.client.put_object(Bucket=BUCKET, Key="r/components.npy", Body=b"half")
    s3.client.put_object(Bucket=BUCKET, Key="r/other.npy", Body=b"half")
    with pytest.raises(DataError, match="is no result of a pca job"):
        lp.PCA.load(address("r"))
    save(address("r"), components=np.eye(3))
    assert s3.keys("r/") == ["r/components.npy", "r/result.json"]


def test_parts_that_were_not_all_uploaded_are_refused(s3, tmp_path, rows):
    pca = lp.PCA(2).fit(rows)
    pca.transform(rows, out=address("scores.parquet"))
    assert lp.open_matrix(address("scores.parquet")).shape == (60, 2)
    s3.client.put_object(Bucket=BUCKET, Key=f"scores.parquet/{MARK}", Body=b"")
    with pytest.raises(DataError, match="was not uploaded to its end"):
        lp.open_matrix(address("scores.parquet"))


def test_a_large_object_goes_in_parts_that_are_aborted_on_failure(s3, tmp_path):
    def failing(request):
        return 403 if "partNumber=2" in request["QUERY_STRING"] else None

    s3.fail = failing
    with (
        pytest.raises(StoreError, match="does not allow it"),
        replacing(path_of(address("m.npy"))) as partial,
    ):
        partial.write_bytes(bytes(20 * 1024**2))
    s3.forget()
    assert s3.keys() == []
    assert not s3.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")
    with replacing(path_of(address("m.npy"))) as partial:
        partial.write_bytes(bytes(20 * 1024**2))
    assert s3.client.head_object(Bucket=BUCKET, Key="m.npy")["ContentLength"] == 20 * 1024**2


@pytest.mark.parametrize("suffix", [".npy", ".arrow", ".zarr"])
def test_convert_and_generate(suffix, s3, rows):
    target = address(f"m{suffix}")
    assert str(convert(rows, target, memory="64MiB")) == target
    out = np.empty((60, 12), np.float32)
    with lp.open_matrix(target).open() as reader:
        reader.read(Span(0, 60), Span(0, 12), out)
    np.testing.assert_array_equal(out, np.load(rows))
    with pytest.raises(DataError, match="exists"):
        convert(rows, target)
    convert(target, address(f"again{suffix}"), memory="64MiB")
    if suffix == ".npy":
        generate(address("g.npy"), 20, 30)
        assert s3.keys("g.") == ["g.components.npy", "g.mean.npy", "g.npy", "g.truth.npz"]


def test_scores_tiles_and_averages_are_those_on_disk(s3, rows, tmp_path):
    with lp.open_engine("serial", memory="64MiB") as engine:
        pca = lp.PCA(2).fit(rows, engine=engine)
        local = pca.transform(rows, out=tmp_path / "s.zarr", engine=engine)
        remote = pca.transform(rows, out=address("s.zarr"), engine=engine)
        np.testing.assert_array_equal(read(remote), read(local))
        on_disk = lp.covariance(rows, out=tmp_path / "c.zarr", engine=engine)
        in_store = lp.covariance(rows, out=address("c.zarr"), engine=engine)
        np.testing.assert_array_equal(in_store.covariance[:], on_disk.covariance[:])
        np.testing.assert_array_equal(lp.TiledCovariance(address("c.zarr")).diagonal(), on_disk.covariance.diagonal())
        np.testing.assert_array_equal(in_store.mean, on_disk.mean)
        with pytest.raises(DataError, match="exists"):
            lp.covariance(rows, out=address("c.zarr"), engine=engine)
        average = {"sampling_rate": 100.0}
        recording = lp.open_recording(np.load(rows), **average)
        spikes = {0: np.array([10, 20, 30]), 1: np.array([15, 40])}
        there = lp.spike_triggered_average(recording, spikes, (-3, 3), out=address("sta.zarr"), engine=engine)
        here = lp.spike_triggered_average(recording, spikes, (-3, 3), out=tmp_path / "sta.zarr", engine=engine)
        np.testing.assert_array_equal(there.mean[:], here.mean[:])


def read(matrix) -> np.ndarray:
    out = np.empty(matrix.shape)
    with matrix.open() as reader:
        reader.read(Span(0, matrix.shape[0]), Span(0, matrix.shape[1]), out)
    return out


def test_tiles_whose_upload_failed_go_on_where_they_were(s3, rows, staging):
    s3.fail = lambda request: 403 if request["REQUEST_METHOD"] == "PUT" and "/mean/" in request["PATH_INFO"] else None
    with lp.open_engine("serial", memory="64MiB") as engine:
        with pytest.raises(StoreError):
            lp.covariance(rows, out=address("c.zarr"), engine=engine)
        tile = next(staging.rglob("covariance/c/0/0"))
        before = stamp(tile)
        seen = []
        s3.fail = lambda request: seen.append(stamp(tile))
        found = lp.covariance(rows, out=address("c.zarr"), engine=engine)
        assert set(seen) <= {before, None} and before in seen
        np.testing.assert_allclose(found.covariance[:], np.cov(np.load(rows).T), rtol=1e-4, atol=1e-3)


def stamp(path: Path) -> tuple[int, int] | None:
    try:
        return path.stat().st_mtime_ns, path.stat().st_ino
    except FileNotFoundError:
        return None


def test_a_state_in_a_store_is_refused(rows):
    for call in (
        lambda: lp.covariance(rows, state=address("state")),
        lambda: lp.PCA(2).fit(rows, state=address("state")),
    ):
        with pytest.raises(DataError, match=r"^s3://bucket/state: cannot hold a state: .* Pass a local folder"):
            call()


def test_a_full_temporary_folder_is_told_before_anything_is_written(s3, rows, monkeypatch):
    monkeypatch.setattr("lazypipe.atomic.free_nbytes", lambda path: 10)
    with pytest.raises(DataError, match=r"s3://bucket/m.npy: needs .* of disk on its way, 10B are free in .* TMPDIR"):
        convert(rows, address("m.npy"))
    assert s3.keys() == []


def test_http_is_only_read(rows):
    with pytest.raises(DataError, match=r"http://127.0.0.1/m.npy: http:// is only read"):
        convert(rows, "http://127.0.0.1/m.npy")


COMMAND = """
import sys, numpy as np
from lazypipe.results import result_folder, save_result
out = result_folder(sys.argv[1], "pca", False)
save_result(out, False, {"job": "pca"}, {f"array{i:02}": np.zeros(1000) for i in range(40)}, {})
"""


def test_a_process_killed_while_it_uploads_leaves_no_result(s3, staging):
    s3.fail = lambda request: time.sleep(0.05) if request["REQUEST_METHOD"] == "PUT" else None
    process = subprocess.Popen([sys.executable, "-c", COMMAND, address("r")], env=dict(os.environ))
    deadline = time.monotonic() + 60
    while not any(r.method == "PUT" and "array1" in r.path for r in s3.requests):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    s3.forget()
    keys = s3.keys("r/")
    assert f"r/{MARK}" in keys and "r/result.json" not in keys
    done = subprocess.run([sys.executable, "-c", COMMAND, address("r")], env=dict(os.environ), timeout=60, check=True)
    assert done.returncode == 0
    assert len(s3.keys("r/")) == 41
    assert json.loads(s3.client.get_object(Bucket=BUCKET, Key="r/result.json")["Body"].read()) == {"job": "pca"}
    assert Path(staging).is_dir()


def test_what_is_only_converted_is_converted_from_a_store(s3, tmp_path):
    import gzip

    from matrix_writers import idx_bytes
    from PIL import Image

    digits = np.arange(60, dtype=np.uint8).reshape(5, 12)
    (tmp_path / "d-idx2.gz").write_bytes(gzip.compress(idx_bytes(digits)))
    np.testing.assert_array_equal(
        read(lp.open_matrix(convert(s3.put(tmp_path / "d-idx2.gz"), tmp_path / "d.npy"))), digits
    )
    (tmp_path / "x.svm").write_text("1 1:2.5 3:1\n0 2:7\n")
    found = lp.open_matrix(convert(s3.put(tmp_path / "x.svm"), tmp_path / "x.arrow"))
    assert (found.shape, found.nnz) == ((2, 3), 3)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(np.full((2, 3), 10 * i, np.uint8)).save(tmp_path / "images" / name / f"{i}.png")
    address_of_images = s3.put(tmp_path / "images")
    here, there = convert(tmp_path / "images", tmp_path / "a.npy"), convert(address_of_images, address("b.npy"))
    np.testing.assert_array_equal(read(lp.open_matrix(there)), read(lp.open_matrix(here)))
    assert s3.keys("b.") == ["b.labels.npy", "b.npy"]


def test_weights_come_from_a_store(s3, rows, tmp_path):
    weights = np.arange(60.0)
    np.save(tmp_path / "w.npy", weights)
    local, remote = (lp.covariance(rows, row_weights=w) for w in (weights, s3.put(tmp_path / "w.npy")))
    np.testing.assert_array_equal(remote.covariance, local.covariance)
