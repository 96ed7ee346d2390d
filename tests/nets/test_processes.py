"""Ranks sum the same bits, and none is lost without the others saying which. Ranks are threads where that will do."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from nets import ranks

import lazypipe as lp
from lazypipe.errors import ConfigError, DataError, EngineError
from lazypipe.nets import rendezvous
from lazypipe.nets.processes import Alone, join
from lazypipe.nets.rendezvous import Rendezvous
from lazypipe.nets.spawning import spawned

TIMEOUT = 60.0  # where none is to be waited for
SHORT = 1.5  # where one is; without a sign of life for a second it is then lost


def in_threads(work, size, who=None, timeout=TIMEOUT):
    """What ``work(group)`` gives or raises on each of those ranks."""

    def rank(index):
        try:
            with join(index, size, place.address, timeout) as group:
                return work(group)
        except Exception as error:
            return error

    with Rendezvous(size) as place, ThreadPoolExecutor(size) as threads:
        return list(threads.map(rank, range(size) if who is None else who))


def raised(found):
    """The one error, in the same words, of all ranks."""
    assert all(isinstance(error, Exception) for error in found), found
    assert len({(type(error), str(error)) for error in found}) == 1, found
    return found[0]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_sums_have_the_same_bits_on_every_rank(size):
    shapes = [(1,), (7,), (1_001,), (33, 517)]

    def summed(group):
        random = torch.Generator().manual_seed(group.rank)
        tensors = [torch.randn(shape, generator=random) for shape in shapes]
        group.sum_(*tensors)
        vector = torch.zeros(100)
        vector[20:60] = group.rank + 1
        group.sum_(vector[20:60])  # a view, as gradients are
        return tensors, vector, group.agree(group.rank + 5)

    found = in_threads(summed, size) + in_threads(summed, size)  # and in every run
    exact = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
    for rank in range(size):
        random = torch.Generator().manual_seed(rank)
        for total in exact:
            total += torch.randn(total.shape, generator=random)
    for tensors, vector, agreed in found:
        for tensor, first, total in zip(tensors, found[0][0], exact, strict=True):
            assert torch.equal(tensor, first)
            torch.testing.assert_close(tensor.double(), total, rtol=1e-6, atol=1e-5)
        assert vector[:20].eq(0).all() and vector[60:].eq(0).all()
        assert vector[20:60].eq(size * (size + 1) / 2).all()
        assert agreed == 5


def test_a_group_of_one_sums_nothing():
    tensor, group = torch.arange(3.0), Alone()
    group.sum_(tensor)
    assert tensor.tolist() == [0, 1, 2] and group.agree(4) == 4 and (group.rank, group.size) == (0, 1)


def test_processes_descend_as_one_does():
    random = torch.Generator().manual_seed(0)
    rows, targets = torch.randn((203, 20), generator=random), torch.randn(203, generator=random)
    events = []
    work = partial(ranks.train, rows=rows, targets=targets, n_steps=30)
    weights, sums, agreed, n_threads = spawned(work, 2, TIMEOUT, events.append)
    torch.testing.assert_close(weights, ranks.descend(Alone(), rows, targets, 30), rtol=1e-5, atol=1e-6)
    assert sums[0] == sums[1] and agreed == 10 and n_threads == max(1, len(os.sched_getaffinity(0)) // 2)
    assert [event.step for event in events] == list(range(1, 31))  # of rank 0 only, in order
    assert events[-1].measures["loss"] < events[0].measures["loss"]


@pytest.mark.parametrize(
    ("who", "there"), [([0, 1, 3], "0, 1, 3 are there"), ([2], "2 is there")], ids=["one is missing", "and rank 0 too"]
)
def test_who_has_not_joined_is_named(who, there):
    error = raised(in_threads(lambda group: None, 4, who, timeout=0.5))
    gone = ", ".join(str(rank) for rank in range(4) if rank not in who)
    assert isinstance(error, EngineError)
    assert f"{gone} of 4 ha" in str(error) and f"not joined within 0.5 s ({there})" in str(error)


def test_who_does_not_come_to_a_sum_is_named():
    def late(group):
        group.sum_(torch.zeros(1))
        time.sleep(2 * SHORT if group.rank == 1 else 0)
        group.sum_(torch.zeros(1))

    error = raised(in_threads(late, 3, timeout=SHORT))
    assert "rank 1 of 3 did not come to sum 3 within 1.5 s, but is alive" in str(error)  # to meet is the first


def test_who_ends_before_the_others_is_named():
    found = in_threads(lambda group: group.rank == 1 or group.sum_(torch.zeros(1)), 2, timeout=SHORT)
    assert "rank 1 of 2 ended before the others" in str(raised(found))


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_who_is_killed_or_stopped_is_named(name):
    command = [sys.executable, ranks.__file__, "rank"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with Rendezvous(2) as place:
        arguments = [place.address, str(TIMEOUT), name]
        with subprocess.Popen([*command, *arguments], env=env) as process:
            try:
                while place.missing() != [0]:  # so that the time is for the sums alone
                    assert process.poll() is None
                    time.sleep(0.02)
                with (
                    pytest.raises(EngineError, match="rank 1 of 2 gave no sign of life"),
                    join(0, 2, place.address, SHORT) as group,
                ):
                    group.sum_(torch.zeros(3))
                    group.sum_(torch.zeros(3))
            finally:
                process.kill()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DataError("x.npy: NaN at row 3. Leave it out."), (DataError, "x.npy: NaN at row 3. Leave it out.")),
        (ValueError("a\nb"), (EngineError, "rank 1 of 3 failed: ValueError: a b")),
    ],
)
def test_what_one_rank_raises_all_raise(error, told):
    found = in_threads(lambda group: ranks.refuse(group, None, error), 3)
    raised(found)
    assert (type(found[0]), str(found[0])) == told
    assert all("in refuse" in rank.__notes__[0] and len(rank.__notes__) == 1 for rank in found)


def test_a_rank_that_comes_again_ends_the_group():
    """As a cluster has it when it runs a task again whose worker was lost."""

    def again(group):
        if group.rank == 1:
            with join(1, 2, group._presence.address, TIMEOUT):
                pass
        group.sum_(torch.zeros(1))

    assert "rank 1 of 2 came twice" in str(raised(in_threads(again, 2)))


def test_errors_of_processes_keep_their_kind_and_say_where():
    with pytest.raises(DataError) as caught:
        spawned(ranks.complain, 2, TIMEOUT)
    assert str(caught.value) == "x.npy: NaN at row 3. Leave it out."
    assert "in complain" in caught.value.__notes__[0]


def test_a_killed_process_is_named():
    with pytest.raises(EngineError, match=r"rank 1 of 2 was killed \(SIGKILL\)"):
        spawned(ranks.killed, 2, TIMEOUT)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def all_end(pids, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not all(map(gone, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return all(map(gone, pids))


def test_no_process_is_left_when_the_caller_is_interrupted():
    pids = []

    def interrupted(event):
        pids.extend(map(int, event.measures))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spawned(ranks.unfinished, 2, TIMEOUT, interrupted)
    assert len(pids) == 2 and all(map(gone, pids))


def test_no_process_is_left_when_the_caller_is_killed(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, ranks.__file__, "parent", tmp_path / "pids"], env=env) as parent:
        while not (tmp_path / "pids").exists() and parent.poll() is None:
            time.sleep(0.02)
        parent.kill()
    assert parent.returncode == -signal.SIGKILL
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert len(pids) == 2 and all_end(pids)


def test_what_cannot_be_is_refused_in_one_line():
    with pytest.raises(ConfigError, match="cannot be sent to another process"):
        spawned(lambda group, tell: None, 2)
    with lp.open_engine("serial") as engine, pytest.raises(ConfigError, match="2 must run at once, and there are 1"):
        Rendezvous(2, engine=engine)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(EngineError, match=f"rank 1 of 2 cannot reach its driver at {address}"), join(1, 2, address):
            pass
    with pytest.raises(ConfigError, match="ranks 0 to 1"), join(2, 2, address):
        pass


def test_the_driver_listens_where_the_workers_are():
    assert rendezvous.reached_at(None) == ("127.0.0.1", "127.0.0.1")
    assert rendezvous.interface_towards("127.0.0.1", "8786") == "127.0.0.1"
    with pytest.raises(EngineError, match="no way leads there"):
        rendezvous.interface_towards("", "none")
