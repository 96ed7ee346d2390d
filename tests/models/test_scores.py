"""Scores of a source, streamed to disk by blocks on the engine."""

from contextlib import nullcontext

import numpy as np
import pytest

import lazypipe as lp

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
