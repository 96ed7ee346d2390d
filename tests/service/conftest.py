"""One real stack a session: Prefect, MLflow, a worker and Dask, with the deployments of prefect.yaml."""

import numpy as np
import pytest
from service.stacks import link_project, stack_in


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    """As ``make up`` starts it, on free ports and in a folder of its own."""
    project = tmp_path_factory.mktemp("project")
    link_project(project)
    with stack_in(project) as stack:
        started = stack.verb("up")
        assert started.returncode == 0, started.stderr + stack.logs()
        yield stack


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A matrix of 60 x 8, and its file."""
    rows = (np.random.default_rng(0).normal(size=(60, 8)) * np.arange(8, 0, -1)).astype(np.float32)
    path = tmp_path_factory.mktemp("tiny") / "rows.npy"
    np.save(path, rows)
    return path, rows
