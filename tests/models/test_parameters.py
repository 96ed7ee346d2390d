"""Estimators as scikit-learn's tools take them."""

import pytest
from sklearn.base import clone

import lazypipe as lp


@pytest.mark.parametrize("model", [lp.PCA(3, scale=True), lp.LinearRegression(2.0)], ids=["PCA", "LinearRegression"])
def test_scikit_learn_copies_an_estimator_and_changes_its_parameters(model):
    copy = clone(model)
    assert type(copy) is type(model) and copy is not model
    assert copy.get_params() == model.get_params() and repr(copy) == repr(model)
    name = next(iter(model.get_params()))
    assert copy.set_params(**{name: 7}) is copy and copy.get_params()[name] == 7 != model.get_params()[name]
    with pytest.raises(lp.ConfigError, match=rf"^{type(model).__name__} has no parameter 'alpha'. It has {name}, "):
        copy.set_params(alpha=1)
