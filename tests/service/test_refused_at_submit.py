"""Prefect's server refuses a password in a parameter before it keeps it."""

import pytest

SECRET = "open-sesame"


@pytest.mark.parametrize(
    "bad",
    [
        {"source": f"s3://me:{SECRET}@bucket/x.npy"},
        {"tracking": {"uri": f"http://me:{SECRET}@host:5000"}},
        {"engine": {"address": f"tcp://me:{SECRET}@host:8786"}},
    ],
    ids=["source", "tracking", "engine"],
)
def test_a_password_in_a_parameter_is_refused_and_not_kept(stack, bad):
    deployment = stack.deployment("pca/pca")
    answer = stack.post(
        f"/deployments/{deployment['id']}/create_flow_run", parameters={"config": {"source": "x.npy", **bad}}
    )
    assert answer.status_code == 409, answer.text
    runs = stack.post("/flow_runs/filter", deployments={"id": {"any_": [deployment["id"]]}})
    assert SECRET not in runs.text
    assert SECRET not in stack.logs()
