"""Codes beside components: the errors of PCA against plain NumPy, and those of autoencoders against their own."""

import numpy as np
import pytest

import lazypipe as lp
from lazypipe.models.codes import code_errors
from lazypipe.nets.components import component_errors


def rows(n=300, seed=0):
    random = np.random.default_rng(seed)
    z = random.random((n, 2))
    x = 0.5 + 0.4 * np.sin(3 * z @ random.standard_normal((2, 8)))
    return (255 * x).astype(np.uint8)


def test_errors_of_components_are_those_of_numpy(serial_engine):
    x, other = rows(), rows(100, 1)
    pca = lp.PCA(3).fit(x, engine=serial_engine)
    expected = []
    for k in (1, 2, 3):
        back = (other - pca.mean_) @ pca.components_[:k].T @ pca.components_[:k] + pca.mean_
        expected.append(((other - back) ** 2).mean())
    np.testing.assert_allclose(component_errors(other, pca.mean_, pca.components_), expected, rtol=1e-4)


def test_codes_beside_components(serial_engine, tmp_path):
    x, other = rows(), rows(100, 1)
    options = {"threads": 1, "pretraining": {"epochs": 2, "batch_size": 50}, "fine_tuning": {"epochs": 2}}
    low = lp.Autoencoder((6,), divide_by=255, **options).pretrain(x, engine=serial_engine)
    given = {"stack": low.stack_, "engine": serial_engine, **options}
    found = code_errors(x, other, [3, 1], state=tmp_path / "state", **given)
    assert [row["n_components"] for row in found] == [1, 3]
    alone = lp.Autoencoder((6, 3), divide_by=255, **options).fit(x, stack=low.stack_, engine=serial_engine)
    assert found[1]["autoencoder"] == alone.reconstruction_error(other)
    pca = lp.PCA(3).fit(x, engine=serial_engine)
    np.testing.assert_allclose(
        [row["PCA"] for row in found],
        component_errors(other, pca.mean_, pca.components_)[[0, 2]] / 255**2,
        rtol=1e-6,
    )
    with pytest.raises(lp.ConfigError, match="codes: 9. Give 1 to 8 of them"):
        code_errors(x, other, [9], **given)
