"""What no other try helps is told apart from a cluster that may be there in a while."""

import time

import pytest

import lazypipe as lp
from lazypipe.engines.dask_gpus import require_gpus
from lazypipe.engines.versions import own_versions, require_same_versions

OWN = own_versions()


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:8786", "tcp://127.0.0.1"])
def test_what_is_no_address_of_a_scheduler_is_refused(address):
    begun = time.monotonic()
    with pytest.raises(lp.RefusedError, match=f"^dask: {address} is no address of a scheduler"):
        lp.open_engine("dask", address=address)
    assert time.monotonic() - begun < 20


def test_an_address_where_nobody_listens_may_be_tried_again():
    with pytest.raises(lp.EngineError, match="no scheduler answers") as caught:
        lp.open_engine("dask", address="tcp://127.0.0.1:1")
    assert not isinstance(caught.value, lp.RefusedError)


def test_other_versions_are_refused_and_a_worker_that_went_away_is_not():
    other, gone = list(OWN._replace(numpy="1.0")), ConnectionResetError("in <TCP>: Stream is closed")
    with pytest.raises(lp.RefusedError, match=r"worker at b has numpy 1\.0"):
        require_same_versions("dask", {"a": gone, "b": other}, "there")
    with pytest.raises(lp.RefusedError, match="worker at b cannot import lazypipe"):
        require_same_versions("dask", {"b": ImportError("no libopenblas.so")}, "there")
    with pytest.raises(lp.EngineError, match=r"worker at a went away .*\(ConnectionResetError: in <TCP>") as caught:
        require_same_versions("dask", {"a": gone, "b": list(OWN)}, "there")
    assert not isinstance(caught.value, lp.RefusedError) and "\n" not in str(caught.value)


class Cluster:
    """Workers without a GPU."""

    def scheduler_info(self, n_workers):
        return {"workers": {"tcp://10.0.0.1:1": {"resources": {}}}}


def test_a_cluster_without_gpus_is_refused_and_one_that_lost_them_is_not():
    with pytest.raises(lp.RefusedError, match="no worker at tcp://h:8786 offers a GPU"):
        require_gpus(Cluster(), "tcp://h:8786", 1)
    with pytest.raises(lp.EngineError, match="offers a GPU any more") as caught:
        require_gpus(Cluster(), "tcp://h:8786", 1, " any more, and none came for 31 s")
    assert not isinstance(caught.value, lp.RefusedError)


def test_it_is_told_from_others_on_its_way_from_a_worker():
    import pickle

    again = pickle.loads(pickle.dumps(lp.RefusedError("spark: the GPU of this task is called 'x'")))
    assert type(again) is lp.RefusedError and isinstance(again, lp.EngineError)
