"""One real stack a session: Prefect, MLflow, a worker and Dask, with the deployments of prefect.yaml."""

import os
from pathlib import Path

import pytest
from prefect_server import link_project
from service.stacks import stack_in


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    """As ``make up`` starts it, on free ports and in a folder of its own."""
    project = tmp_path_factory.mktemp("project")
    link_project(project)
    with stack_in(project) as stack:
        started = stack.verb("up")
        assert started.returncode == 0, started.stderr + stack.logs()
        yield stack


@pytest.fixture
def project(tmp_path):
    """A project with no deployments, for a stack of the test's own."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Where pictures of pages go: $LAZYPIPE_PAGES, else a folder of the test's."""
    folder = Path(os.environ.get("LAZYPIPE_PAGES") or tmp_path_factory.mktemp("pages")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
