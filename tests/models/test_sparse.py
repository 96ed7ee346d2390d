"""Sparse rows: every model gives what it gives for the same matrix dense, and nothing is densified."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp

import lazypipe as lp
from lazypipe.blocks import Block, Span
from lazypipe.io.convert import convert
from lazypipe.stats.covariance import Covariance

pytestmark = pytest.mark.filterwarnings("ignore::lazypipe.ClosePairWarning")


def text_like(n_rows, n_columns, per_row, seed=0, dtype="float32"):
    """Rows of few counts, whose columns thin out as words do, with a few topics."""
    rng = np.random.default_rng(seed)
    topics = rng.dirichlet(np.full(n_columns, 0.02), 6)
    rows = [rng.multinomial(per_row, topics[i % 6] * 0.7 + topics[rng.integers(6)] * 0.3) for i in range(n_rows)]
    return sp.csr_array(np.array(rows, dtype))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sparse")
    found = {}
    for name, shape in (("wide", (90, 400)), ("tall", (600, 40))):
        x = text_like(*shape, per_row=25)
        sp.save_npz(folder / f"{name}.npz", x, compressed=False)
        for suffix in (".arrow", ".parquet"):
            convert(folder / f"{name}.npz", folder / f"{name}{suffix}")
        found[name] = folder / name, x.toarray().astype(float)
    return found


OPTIONS = {
    "plain": {},
    "about zero": {"center": False},
    "scaled": {"scale": True},
    "weighted, scaled": {"scale": True, "row_weights": True},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", ["wide", "tall"])
@pytest.mark.parametrize("suffix", [".npz", ".arrow", ".parquet"])
def test_pca_of_sparse_rows_equals_that_of_the_same_rows_dense(sources, shape, suffix, options, serial_engine):
    path, x = sources[shape]
    options = dict(OPTIONS[options])
    if "row_weights" in options:
        options["row_weights"] = np.random.default_rng(0).integers(0, 3, len(x)).astype(float)
    want = lp.PCA(3, tol=1e-7, **options).fit(x, engine=serial_engine)
    for solver in ("gradient", "covariance"):
        got = lp.PCA(3, solver=solver, tol=1e-5, **options).fit(f"{path}{suffix}", engine=serial_engine)
        np.testing.assert_allclose(got.explained_variance_, want.explained_variance_, rtol=1e-5)
        np.testing.assert_allclose(got.total_variance_, want.total_variance_, rtol=1e-5)
        np.testing.assert_allclose(np.abs((got.components_ * want.components_).sum(axis=1)), 1, rtol=1e-5)
        np.testing.assert_allclose(got.mean_, want.mean_, atol=1e-6)
        scores = got.transform(f"{path}{suffix}", engine=serial_engine)
        np.testing.assert_allclose(scores, got.transform(x), atol=1e-4 * np.abs(scores).max())


@pytest.mark.parametrize("memory", ["32MiB", "128MiB"])
def test_the_short_side_by_row_blocks(tmp_path, memory):
    """With D-long vectors out of reach the rows are iterated on, by two reads a product."""
    x = text_like(150, 30_000, per_row=60)
    sp.save_npz(tmp_path / "x.npz", x, compressed=False)
    dense = x.toarray().astype(float)
    _, s, v = np.linalg.svd(dense - dense.mean(axis=0), full_matrices=False)
    with lp.open_engine("serial", memory=memory) as engine:
        pca = lp.PCA(3, solver="gradient", tol=1e-5).fit(tmp_path / "x.npz", engine=engine)
    np.testing.assert_allclose(pca.explained_variance_, s[:3] ** 2 / 149, rtol=1e-5)
    np.testing.assert_allclose(np.abs((pca.components_ * v[:3]).sum(axis=1)), 1, rtol=1e-5)
    assert pca.converged_


def test_engines_agree_on_sparse_rows(sources, serial_engine, cluster_engine):
    path, _ = sources["wide"]
    for solver in ("gradient", "covariance"):
        fits = [
            lp.PCA(3, solver=solver, scale=True).fit(f"{path}.arrow", engine=engine)
            for engine in (serial_engine, cluster_engine)
        ]
        np.testing.assert_array_equal(fits[0].components_, fits[1].components_)


def test_covariance_and_its_increment(sources, serial_engine, tmp_path):
    path, x = sources["tall"]
    found = lp.covariance(f"{path}.arrow", engine=serial_engine, state=tmp_path / "state")
    np.testing.assert_allclose(found.covariance, np.cov(x.T), atol=1e-12)
    again = lp.covariance(f"{path}.arrow", engine=serial_engine, state=tmp_path / "state")
    assert again.n_new_rows == 0
    np.testing.assert_array_equal(again.covariance, found.covariance)


def test_nan_entries_by_policy(tmp_path, serial_engine):
    x = text_like(80, 30, per_row=20)
    x.data[[3, 40, 200]] = np.nan
    sp.save_npz(tmp_path / "x.npz", x, compressed=False)
    dense = x.toarray().astype(float)
    keep = ~np.isnan(dense).any(axis=1)
    filled = np.where(np.isnan(dense), np.nanmean(dense, axis=0), dense)
    for nan, copy in (("omit", dense[keep]), ("mean", filled)):
        want = np.linalg.eigvalsh(np.cov(copy.T))[::-1][:2]
        for solver in ("gradient", "covariance"):
            got = lp.PCA(2, solver=solver, nan=nan, tol=1e-5).fit(tmp_path / "x.npz", engine=serial_engine)
            np.testing.assert_allclose(got.explained_variance_, want, rtol=1e-5)
    with pytest.raises(lp.DataError, match=r"NaN at row \d+, column \d+"):
        lp.PCA(2).fit(tmp_path / "x.npz", engine=serial_engine)


def test_what_needs_column_stripes_says_so(sources, serial_engine, tmp_path):
    path, _ = sources["wide"]
    with pytest.raises(lp.PlanError, match="column stripes"):
        lp.PCA(2, solver="gram").fit(f"{path}.npz", engine=serial_engine)
    with pytest.raises(lp.PlanError, match="column stripes"):
        lp.covariance(f"{path}.npz", engine=serial_engine, out=tmp_path / "c.zarr")


@pytest.mark.filterwarnings("ignore::lazypipe.ConvergenceWarning", "ignore::lazypipe.ClosePairWarning")
def test_passes_by_row_blocks_are_all_counted(tmp_path):
    """Means, a product and the components: of the last two each reads the rows twice."""
    x = sp.random_array((30, 60_000), density=0.01, format="csr", rng=np.random.default_rng(0))
    sp.save_npz(tmp_path / "x.npz", x, compressed=False)
    with lp.open_engine("serial", memory="64MiB") as engine:
        with pytest.raises(lp.ConfigError, match="max_passes: 4 is too few for gradient .* Give 5 or more"):
            lp.PCA(2, solver="gradient", max_passes=4).fit(tmp_path / "x.npz", engine=engine)
        assert lp.PCA(2, solver="gradient", max_passes=5).fit(tmp_path / "x.npz", engine=engine).n_passes_ == 5


@pytest.mark.filterwarnings("ignore::lazypipe.ConvergenceWarning")
def test_nothing_is_densified(tmp_path):
    """300 rows x 200,000 columns would be 240 MB dense; the fit stays under its 40 MiB."""
    rng = np.random.default_rng(0)
    n_rows, n_columns, per_row = 300, 200_000, 50
    indices = np.sort(rng.integers(0, n_columns, (n_rows, per_row)), axis=1)
    indices += np.arange(per_row)  # without duplicates
    x = sp.csr_array(
        (
            rng.random(n_rows * per_row, np.float32),
            indices.ravel() % (n_columns + per_row),
            np.arange(0, n_rows * per_row + 1, per_row),
        ),
        shape=(n_rows, n_columns + per_row),
    )
    sp.save_npz(tmp_path / "x.npz", x, compressed=False)
    with lp.open_engine("serial", memory="200MiB") as engine:
        tracemalloc.start()
        pca = lp.PCA(2, solver="gradient", tol=1e-2, max_passes=12).fit(tmp_path / "x.npz", engine=engine)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert pca.components_.shape == (2, n_columns + per_row)
    assert peak < pca.plan_.arrays_nbytes <= 200 * 2**20


@pytest.mark.parametrize("density", [0.01, 0.2])
def test_a_covariance_of_sparse_rows_stays_under_the_plan(density, tmp_path):
    x = sp.random_array((3_000, 600), density=density, format="csr", dtype=np.float32, random_state=0)
    sp.save_npz(tmp_path / "x.npz", x, compressed=False)
    matrix, statistic = lp.open_matrix(tmp_path / "x.npz"), Covariance(None)
    with lp.open_engine("serial", memory="64MiB") as engine:
        (fold,) = lp.plan_covariance(matrix, engine=engine).folds
    with matrix.open() as reader:
        span = Span(0, fold.step)
        block = Block(reader.read_rows(span, np.dtype(np.float32)), span, Span(0, 600), matrix.uri)
        statistic.measure(block)  # loads what it needs
        tracemalloc.start()
        state = statistic.measure(block)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    taken = peak + matrix.block_nbytes(fold.step, 600, 4)
    told = fold.task_nbytes - matrix.reader_nbytes(fold.step, 600)
    assert 0.6 * told < taken <= told
    wide = x[: fold.step].toarray().astype(float)
    np.testing.assert_allclose(state.product, wide.T @ wide, atol=1e-9)
    np.testing.assert_array_equal(state.product, state.product.T)
