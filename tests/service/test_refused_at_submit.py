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
    stack.refusal("pca/pca", {"config": {"source": "x.npy", **bad}})
    asked = {"deployments": {"id": {"any_": [stack.deployment("pca/pca")["id"]]}}}
    assert SECRET not in stack.post("/flow_runs/filter", **asked).raise_for_status().text
    logs = [path.read_bytes() for path in (stack.folder / "logs").glob("*.log")]
    assert any(b"Uvicorn" in log for log in logs)
    assert not any(SECRET.encode() in log for log in logs)
