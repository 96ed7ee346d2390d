"""Scores of a source, streamed to disk by blocks on the engine."""

import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest

import lazypipe as lp
from lazypipe.models.pca import plan_transform
from lazypipe.models.pca.scores import with_scores

pytestmark = pytest.mark.filterwarnings("ignore::lazypipe.ClosePairWarning")


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(3_000, 6)) @ rng.normal(size=(6, 50)) + rng.normal(size=(3_000, 50)) * 0.1).astype(np.float32)
    with lp.open_engine("serial", memory="64MiB") as engine:
        return x, lp.PCA(3, scale=True).fit(x, engine=engine)


@pytest.mark.parametrize("suffix", [".zarr", ".parquet"])
def test_scores_on_disk_equal_scores_in_memory_on_every_engine(suffix, fitted, tmp_path, cluster_engine, monkeypatch):
    monkeypatch.setattr("lazypipe.models.pca.scores.CHUNK_NBYTES", 100_000)  # several chunks
    x, pca = fitted
    np.save(tmp_path / "x.npy", x)
    scores = pca.transform(tmp_path / "x.npy", out=tmp_path / f"s{suffix}", engine=cluster_engine)
    assert scores.shape == (3_000, 3)
    found = np.empty(scores.shape)
    with scores.open() as reader:
        reader.read(lp.io.matrix.Span(0, 3_000), lp.io.matrix.Span(0, 3), found)
    np.testing.assert_allclose(found, pca.transform(x), atol=1e-4)
    in_memory = pca.transform(tmp_path / "x.npy", engine=cluster_engine)
    np.testing.assert_array_equal(found, in_memory)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_refusals(fitted, tmp_path, serial_engine):
    x, pca = fitted
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(lp.DataError, match=r"cannot write '.csv'. Use .zarr or .parquet"):
        pca.transform(tmp_path / "x.npy", out=tmp_path / "s.csv", engine=serial_engine)
    (tmp_path / "s.zarr").mkdir()
    with pytest.raises(lp.DataError, match="exists"):
        pca.transform(tmp_path / "x.npy", out=tmp_path / "s.zarr", engine=serial_engine)
    with pytest.raises(lp.DataError, match="4 columns, but the components have 50"):
        pca.transform(np.zeros((3, 4)), out=tmp_path / "t.zarr", engine=serial_engine)
    bad = x.copy()
    bad[1_234, 5] = np.nan
    with pytest.raises(lp.DataError, match="NaN at row 1,234, column 5"):
        pca.transform(bad, out=tmp_path / "t.zarr", engine=serial_engine)
    assert not (tmp_path / "t.zarr").exists()


def test_fit_transform_works_on_the_engine_it_is_given(serial_engine, monkeypatch):
    given = []
    monkeypatch.setattr(
        "lazypipe.models.pca.estimator.engine_or_own", lambda engine: given.append(engine) or nullcontext(serial_engine)
    )
    x = np.random.default_rng(0).normal(size=(200, 6)) * np.arange(1, 7)
    pca = lp.PCA(2)
    scores = pca.fit_transform(x, engine=serial_engine)
    assert given == [serial_engine, serial_engine]
    np.testing.assert_allclose(scores, (x - x.mean(axis=0)) @ pca.components_.T, atol=1e-6)


MEASURED = """
import sys
import numpy as np
import lazypipe as lp
from lazypipe.engines import resident
from lazypipe.models.pca import plan_transform
path, suffix = sys.argv[1:]
pca = lp.PCA(20)
pca.components_, pca.mean_, pca.scale_, pca.fill_ = np.eye(20, dtype=np.float32), np.zeros(20), None, None
with lp.open_engine("serial", memory="32MiB") as engine:
    pca.transform(path, out=path + ".first" + suffix, engine=engine)  # loads what it needs
    resident.return_large_arrays()
    engine.reset_peak()
    before = resident.resident_nbytes()
    pca.transform(path, out=path + suffix, engine=engine)
    print(engine.peak_memory() - before, plan_transform(path, pca, engine).arrays_nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("suffix", [".zarr", ".parquet"])
def test_scores_larger_than_their_source_stay_under_the_plan(suffix, tmp_path):
    """48 MB of scores from 6 MB of int8."""
    np.save(tmp_path / "x.npy", np.zeros((300_000, 20), np.int8))
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "x.npy"), suffix]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    taken, told = map(int, done.stdout.split())
    assert taken <= told + 2**21  # of the libraries
    assert told <= 32 * 2**20


def test_a_plan_counts_the_scores_of_the_tasks_at_once():
    pca = lp.PCA(50)
    pca.components_, pca.mean_, pca.scale_, pca.fill_ = np.zeros((50, 100), np.float32), np.zeros(100), None, None
    tall = np.broadcast_to(np.zeros(1, np.int8), (10_000_000, 100))
    with lp.open_engine("dask", memory="512MiB", workers=4) as engine:
        (fold,) = plan_transform(tall, pca, engine).folds
        assert fold.task_nbytes > 8 * 50 * max(run.stop - run.start for run in fold.runs)
        assert fold.peak_nbytes <= 512 * 2**20
        assert fold.runs[-1].stop == 10_000_000 and len(fold.runs) < 1000
        fit = lp.plan_pca(tall, lp.PCA(50), engine)
        assert with_scores(fit, lp.open_matrix(tall), 50, False).arrays_nbytes >= fold.peak_nbytes


def test_scores_in_memory_are_refused_where_the_budget_does_not_hold_them(tmp_path):
    pca = lp.PCA(3)
    pca.components_, pca.mean_, pca.scale_, pca.fill_ = np.zeros((3, 1), np.float32), np.zeros(1), None, None
    np.save(tmp_path / "x.npy", np.zeros((1_000_000, 1), np.float32))
    with lp.open_engine("serial", memory="16MiB") as engine:
        with pytest.raises(lp.MemoryPlanError, match=r"It fits in memory=.* or write the scores to disk with out="):
            pca.transform(tmp_path / "x.npy", engine=engine)
        assert pca.transform(tmp_path / "x.npy", out=tmp_path / "s.zarr", engine=engine).shape == (1_000_000, 3)
