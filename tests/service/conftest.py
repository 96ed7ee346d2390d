"""One real stack a session: Prefect, MLflow, a worker and Dask, with the deployments of prefect.yaml."""

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
