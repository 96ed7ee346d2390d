"""Addresses where somebody listens and says nothing, as a frozen server does: told in a line, within seconds."""

import socket
import threading
import time
from contextlib import contextmanager

import pytest
from dask.distributed import LocalCluster

import lazypipe as lp
from lazypipe.engines.dask_cluster import connected
from lazypipe.engines.knocking import SECONDS, STREAM_OF_SPARK
from lazypipe.engines.spark_session import require_master


@contextmanager
def listener(answer=None):
    """The port of one that takes connections; ``answer`` makes of what it hears what it says."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        heard = []

        def serve():
            guest, _ = door.accept()
            with guest:
                heard.append(guest.recv(65536))
                guest.sendall(answer(heard[0]))

        if answer is not None:
            threading.Thread(target=serve, daemon=True).start()
        yield door.getsockname()[1], heard


@pytest.mark.parametrize(
    ("call", "scheme", "said"),
    [
        (connected, "tcp", "dask: no scheduler answers at {address} (TimeoutError). Start one with `dask scheduler`"),
        (require_master, "spark", "spark: nobody answers at {address}. Start a master there"),
    ],
)
def test_one_that_says_nothing_is_told_within_seconds(call, scheme, said):
    with listener() as (port, _):
        address = f"{scheme}://127.0.0.1:{port}"
        begun = time.monotonic()
        with pytest.raises(lp.EngineError) as caught:
            call(address)
    assert time.monotonic() - begun < SECONDS + 3
    assert str(caught.value).startswith(said.format(address=address)) and "\n" not in str(caught.value)


def test_a_master_is_taken_by_its_answer_and_one_that_hangs_up_too():
    for answer in (b"\0", b""):
        with listener(lambda _, answer=answer: answer) as (port, heard):
            require_master(f"spark://127.0.0.1:{port}")
        assert heard == [STREAM_OF_SPARK]


def test_of_several_masters_one_must_answer():
    with listener() as (silent, _), listener(lambda _: b"\0") as (alive, _):
        require_master(f"spark://127.0.0.1:{silent},127.0.0.1:{alive}")


def test_a_scheduler_speaks_first():
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0", protocol="tcp") as cluster:
        connected(cluster.scheduler_address).close()
