"""Engines shared by the tests: one of each kind a session."""

import pytest

import lazypipe as lp


@pytest.fixture(scope="session")
def serial_engine():
    with lp.open_engine("serial") as engine:
        yield engine


@pytest.fixture(scope="session")
def dask_engine():
    with lp.open_engine("dask", workers=2) as engine:
        yield engine


@pytest.fixture(scope="session")
def spark_engine():
    with lp.open_engine("spark", workers=2) as engine:
        yield engine


@pytest.fixture(params=["dask", "spark"])
def cluster_engine(request):
    return request.getfixturevalue(f"{request.param}_engine")


@pytest.fixture(autouse=True)
def no_store_of_the_environment(monkeypatch):
    """mlflow.set_tracking_uri leaves it to all that follows, and jobs take it for their store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
