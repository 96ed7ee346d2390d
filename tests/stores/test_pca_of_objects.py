"""PCA of a matrix in a store: the same bits as of the file, and only the ranges that the plan says are read."""

import numpy as np
import pytest

import lazypipe as lp
from lazypipe.models.pca import plan_pca


def low_rank(n_rows: int, n_columns: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = random.normal(size=(n_rows, 5)) @ random.normal(size=(5, n_columns))
    return (values + 0.1 * random.normal(size=(n_rows, n_columns))).astype(np.float32)


@pytest.fixture(scope="module")
def tall(tmp_path_factory):
    path = tmp_path_factory.mktemp("tall") / "m.npy"
    np.save(path, low_rank(3000, 700))
    return path


def test_the_components_are_those_of_the_file_bit_for_bit(s3, tall, serial_engine, dask_engine):
    address = s3.put(tall)
    local = lp.PCA(3, solver="gradient").fit(tall, engine=serial_engine)
    for engine in (serial_engine, dask_engine):
        remote = lp.PCA(3, solver="gradient").fit(address, engine=engine)
        assert remote.n_passes_ == local.n_passes_ > 2
        np.testing.assert_array_equal(remote.components_, local.components_)
        np.testing.assert_array_equal(remote.explained_variance_, local.explained_variance_)


def test_a_pass_downloads_what_the_plan_says(s3, tall, serial_engine):
    address = s3.put(tall)
    matrix = lp.open_matrix(address)
    assert s3.downloaded() < 1e6
    plan = plan_pca(matrix, lp.PCA(3, solver="covariance"), serial_engine)
    s3.forget()
    lp.PCA(3, solver="covariance").fit(matrix, engine=serial_engine)
    wanted = plan.passes * plan.folds[0].bytes_read
    assert wanted <= s3.downloaded() <= 1.2 * wanted
    assert all(request.range for request in s3.requests if request.method == "GET")
