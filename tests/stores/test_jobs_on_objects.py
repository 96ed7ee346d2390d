"""Jobs of which source, model and results lie in a store: by the command line, on Dask and on Spark."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from object_server import BUCKET

import lazypipe as lp
from lazypipe.models.pca import plan_pca

pytestmark = pytest.mark.service


@pytest.fixture
def rows(tmp_path):
    random = np.random.default_rng(0)
    values = random.normal(size=(400, 3)) * [9, 6, 3] @ random.normal(size=(3, 30)) + random.normal(size=(400, 30))
    np.save(tmp_path / "rows.npy", values.astype(np.float32))
    return tmp_path / "rows.npy"


def run(folder, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "jobs", *arguments], cwd=folder, env=dict(os.environ), capture_output=True, text=True,
        check=False, timeout=180,
    )  # fmt: skip


def test_pca_of_objects_to_objects_by_the_command_line(s3, rows, tmp_path):
    source = s3.put(rows)
    out, scores = f"s3://{BUCKET}/results/pca", f"s3://{BUCKET}/scores.zarr"
    done = run(tmp_path, "pca", "--source", source, "--n-components", "2", "--out", out, "--engine.kind", "serial")
    assert done.returncode == 0, done.stderr
    assert f"result    {out}" in done.stdout
    keys = s3.keys("results/pca/")
    assert {"results/pca/result.json", "results/pca/components.npy", "results/pca/scree.png"} <= set(keys)
    record = json.loads(s3.client.get_object(Bucket=BUCKET, Key="results/pca/result.json")["Body"].read())
    assert record["source"]["uri"] == source
    assert "an-access-key" not in json.dumps(record) and "a-very-secret-key" not in json.dumps(record)
    arguments = ("transform", "--model", out, "--source", source, "--scores", scores, "--engine.kind", "serial")
    done = run(tmp_path, *arguments, "--out", f"s3://{BUCKET}/results/scores", "--tracking.enabled", "false")
    assert done.returncode == 0, done.stderr
    assert lp.open_matrix(scores).shape == (400, 2)
    local = lp.PCA(2).fit(rows)
    np.testing.assert_allclose(lp.PCA.load(out).components_, local.components_, atol=1e-5)
    again = run(tmp_path, "pca", "--source", source, "--n-components", "2", "--out", out, "--engine.kind", "serial")
    assert again.returncode == 2
    assert again.stderr == (
        f"DataError: {out}: exists. Pass --overwrite (overwrite=True) to replace it, or another name.\n"
    )


def test_a_key_that_is_missing_is_one_line_of_the_command(s3, tmp_path):
    done = run(tmp_path, "pca", "--source", f"s3://{BUCKET}/none.npy", "--n-components", "2")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"DataError: s3://{BUCKET}/none.npy: no such object or bucket. Check the address.\n"


def test_a_store_that_refuses_in_the_middle_is_one_line_of_the_command(s3, tmp_path):
    np.save(tmp_path / "m.npy", np.random.default_rng(0).normal(size=(20_000, 50)).astype(np.float32))
    address = s3.put(tmp_path / "m.npy")
    s3.fail = lambda request: None if request.get("HTTP_RANGE", "bytes=0-").startswith("bytes=0-") else 403
    for kind in ("serial", "dask"):
        options = ("--out", f"on-{kind}", "--engine.kind", kind, "--tracking.enabled", "false")
        done = run(tmp_path, "pca", "--source", address, "--n-components", "2", *options)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert done.stderr.startswith(f"StoreError: {address}: cannot be read: the store does not allow it (Forbidden)")
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / f"on-{kind}").exists()


@pytest.mark.parametrize("format", ["npy", "zarr", "parquet"])
def test_dask_in_process_and_serial_give_the_bits_of_the_file(format, s3, rows, tmp_path, serial_engine, dask_engine):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lazypipe.io.convert import convert

    path = rows
    if format == "zarr":
        path = convert(rows, tmp_path / "m.zarr", panel_columns=7)
    elif format == "parquet":
        values = np.load(rows)
        path = tmp_path / "m.parquet"
        pq.write_table(pa.table({f"x{j}": values[:, j] for j in range(30)}), path, row_group_size=150)
    address = s3.put(path)
    wanted = lp.PCA(2).fit(path, engine=serial_engine)
    for engine in (serial_engine, dask_engine):
        found = lp.PCA(2).fit(address, engine=engine)
        assert (found.solver_, found.n_passes_) == (wanted.solver_, wanted.n_passes_)
        np.testing.assert_array_equal(found.components_, wanted.components_)


@pytest.mark.skipif(not shutil.which("java"), reason="Spark needs Java 17 or 21")
def test_spark_gives_the_bits_of_the_file(s3, rows, tmp_path, serial_engine):
    """In a process of its own: its workers have the environment that Spark was started with."""
    options = ("--engine.kind", "spark", "--engine.workers", "2", "--tracking.enabled", "false")
    done = run(tmp_path, "pca", "--source", s3.put(rows), "--n-components", "2", "--out", "on-spark", *options)
    assert done.returncode == 0, done.stderr
    found = lp.PCA.load(tmp_path / "on-spark").components_
    np.testing.assert_array_equal(found, lp.PCA(2).fit(rows, engine=serial_engine).components_)


def test_the_plan_says_what_a_pass_downloads(s3, rows, serial_engine):
    plan = plan_pca(lp.open_matrix(s3.put(rows)), lp.PCA(2), serial_engine)
    assert any("read from a store in ranges; a pass downloads 46.9KiB" in line for line in plan.lines())
    assert not any("from a store" in line for line in plan_pca(lp.open_matrix(rows), lp.PCA(2), serial_engine).lines())


def test_generate_and_predict(s3, rows, tmp_path):
    target = f"s3://{BUCKET}/g.npy"
    done = run(tmp_path, "generate", "--target", target, "--n-rows", "40", "--n-columns", "30")
    assert done.returncode == 0, done.stderr
    assert lp.open_matrix(target).shape == (40, 30)
    pytest.importorskip("torch")
    X = np.load(rows)
    lp.MLP((8,), epochs=1).fit(X, (X[:, 0] > 0).astype(int)).save(tmp_path / "model.safetensors")
    model = s3.put(tmp_path / "model.safetensors", "models/m/model.safetensors").removesuffix("/model.safetensors")
    out = f"s3://{BUCKET}/said.npy"
    done = run(tmp_path, "predict", "--model", model, "--source", s3.put(rows), "--out", out)
    assert done.returncode == 0, done.stderr
    assert s3.keys("said") == ["said.npy"]


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_stretches_to_leave_out_come_from_a_store(suffix, s3, tmp_path):
    from jobs._recording import excluded

    path = tmp_path / f"artefacts{suffix}"
    if suffix == ".npy":
        np.save(path, np.array([[100, 200], [500, 600]]))
    else:
        path.write_text("start,stop\n100,200\n500,600\n")
    assert excluded(s3.put(path)) == excluded(str(path)) == ((100, 200), (500, 600))


def test_an_average_of_objects_is_that_of_the_files(s3, tmp_path):
    values = np.random.default_rng(0).integers(-900, 900, (4000, 6)).astype(np.int16)
    values.tofile(tmp_path / "probe.dat")
    spikes = np.sort(np.random.default_rng(1).choice(4000, 200, replace=False))
    np.savez(tmp_path / "spikes.npz", samples=spikes, units=spikes % 3)
    means = []
    for source, times in ((tmp_path / "probe.dat", tmp_path / "spikes.npz"),
                          (s3.put(tmp_path / "probe.dat"), s3.put(tmp_path / "spikes.npz"))):  # fmt: skip
        recording = lp.open_recording(source, n_channels=6, dtype="int16", sampling_rate=1000)
        means.append(lp.spike_triggered_average(recording, lp.read_spikes(times), (-10, 10)).mean)
    np.testing.assert_array_equal(means[1], means[0])
