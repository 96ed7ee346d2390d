"""Where runs are kept: addresses that are none, and the store that a caller has chosen for MLflow itself."""

import mlflow
import numpy as np
import pytest

import lazypipe as lp
from lazypipe import tracking


@pytest.mark.parametrize("uri", ["http://[::1", "http://host:five", "postgresql://host:99999/runs"])
def test_what_is_no_address_is_refused_as_that(uri):
    with pytest.raises(lp.ConfigError, match=r"^tracking\.uri: .* is no address \(.*\)\. Write it as") as caught:
        tracking.require_store(uri)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chosen", ["http://elsewhere:5000", None])
def test_a_caller_goes_on_with_the_store_that_it_had_chosen(chosen, stored, tmp_path):
    np.save(tmp_path / "rows.npy", np.eye(6))
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(chosen)
    try:
        with tracking.tracked_run(stored, "pca", {}, lp.open_matrix(tmp_path / "rows.npy")) as run:
            tracking.log_projection(stored, run.run_id, np.zeros(6), np.eye(6)[:2])
        assert (mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None) == chosen
        assert len(mlflow.MlflowClient(stored).search_logged_models([run.experiment_id])) == 1
    finally:
        mlflow.set_tracking_uri(before)
