"""Engines shared by the tests: one of each kind a session."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import lazypipe as lp

HERE = Path(__file__).parent


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


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A file of MLflow's tables, with nothing in them: they take seconds to make, and no time to copy."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tmp_path_factory.mktemp("empty")
    SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", str(folder / "mlruns"))
    return folder / "mlflow.db"


@pytest.fixture
def stored(empty_store, tmp_path):
    """The address of such a store in the test's folder, under the name that jobs look for."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A matrix of 60 x 8, and its file."""
    rows = (np.random.default_rng(0).normal(size=(60, 8)) * np.arange(8, 0, -1)).astype(np.float32)
    path = tmp_path_factory.mktemp("tiny") / "rows.npy"
    np.save(path, rows)
    return path, rows


def pytest_collection_modifyitems(items):
    """What lies in these folders starts servers."""
    for item in items:
        if {"service", "flows"} & set(item.path.relative_to(HERE).parts):
            item.add_marker(pytest.mark.service)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """SIGTERM, as of a CI whose time is over, ends tests as Ctrl-C does: with the servers that they started."""
    if item.get_closest_marker("service"):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
