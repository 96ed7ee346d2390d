"""Hosts whose link is cut: a scheduler in one network namespace, workers in others, a driver beside it or away.

Linux, root and `ip` (iproute2) are needed. A cut link loses packets without a word, as a pulled cable does: nobody
is told that a connection is closed.
"""

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from processes import wait_until
from service.clusters import ROOT, DaskCluster, assert_same_bits, kept, rows_in

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None,
    reason="network namespaces need Linux, root and iproute2 (ip)",
)
HERE = f"lp{os.getpid() % 10_000}"
HOSTS = ("driver", "left", "right", "away")

DRIVER = """
import sys, time
import lazypipe as lp
from lazypipe.progress import Progress, TaskDone, WorkerSaid
from service.clusters import SlowMoments, keep, plan_of

address, path, out, seconds = sys.argv[1:]

def hear(event):
    if isinstance(event, TaskDone):
        print("done", event.n_done, time.time(), flush=True)
    elif isinstance(event, WorkerSaid):
        print("said", event.worker, event.text, flush=True)
        print("at", time.time(), event.text, flush=True)

while True:
    engine = lp.open_engine("dask", address=address, memory="64MiB", progress=Progress((hear,)))
    if len(engine.client.scheduler_info(n_workers=-1)["workers"]) == 2:
        break
    engine.close()
    time.sleep(0.3)
with engine:
    try:
        found = engine.fold(SlowMoments(seconds=float(seconds)), lp.open_matrix(path), plan_of())
    except lp.EngineError as error:
        print("error", time.time(), error, flush=True)
        raise SystemExit(2)
    print("answer", time.time(), flush=True)
keep(out, found)
"""


def ip(*words):
    subprocess.run(["ip", *map(str, words)], check=True, capture_output=True, text=True)


class Network:
    """Namespaces on a bridge, by the names of their hosts; ``cut`` and ``heal`` the link of one."""

    def __enter__(self):
        self.names = {host: f"{HERE}-{host}" for host in HOSTS}
        try:
            # The bridge is in a namespace of its own: the machine's firewall does not see it.
            ip("netns", "add", f"{HERE}-bridge")
            self._in("bridge", "link", "add", "bridge", "type", "bridge")
            self._in("bridge", "link", "set", "bridge", "up")
            for i, (host, name) in enumerate(self.names.items(), 1):
                ip("netns", "add", name)
                self._in(host, "link", "add", "eth0", "type", "veth", "peer", "name", host, "netns", f"{HERE}-bridge")
                self._in("bridge", "link", "set", host, "master", "bridge", "up")
                self._in(host, "address", "add", f"10.77.0.{i}/24", "dev", "eth0")
                self._in(host, "link", "set", "eth0", "up")
                self._in(host, "link", "set", "lo", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in (*HOSTS, "bridge"):
            subprocess.run(["ip", "netns", "delete", f"{HERE}-{name}"], capture_output=True, check=False)

    def _in(self, host, *words):
        ip("-n", f"{HERE}-{host}", *words)

    def at(self, host):
        """What a command begins with to run there."""
        return ("ip", "netns", "exec", self.names[host])

    def cut(self, host):
        """The bridge forgets the host: what it sends, and what is sent to it, is lost."""
        self._in("bridge", "link", "set", host, "nomaster")

    def heal(self, host):
        self._in("bridge", "link", "set", host, "master", "bridge")


@pytest.fixture(scope="module")
def network():
    try:
        network = Network().__enter__()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
    yield network
    network.__exit__()


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return rows_in(tmp_path_factory.mktemp("rows"))


@dataclass(frozen=True)
class Trial:
    """A fold on two workers in namespaces of their own, whose driver tells what happens."""

    address: str  # of the scheduler
    driver: subprocess.Popen
    out: Path  # what it finds

    def lines(self, word):
        return [line for line in self.driver.log.read_text().splitlines() if line.startswith(word)]

    def done(self):
        return len(self.lines("done"))

    def answered(self, wanted, seconds):
        """When, once the answer is there and right."""
        assert self.driver.wait(seconds) == 0, self.driver.log.read_text()
        assert_same_bits(kept(self.out), wanted)
        return float(self.lines("answer")[0].split()[1])


@contextmanager
def trial_of(network, folder, matrix, seconds, driver="driver"):
    """One whose first eight tasks are done; a task takes so many ``seconds`` at least."""
    with DaskCluster(folder, "10.77.0.1", network.at("driver")) as cluster:
        for i, host in enumerate(("left", "right"), 2):
            options = ("--host", f"10.77.0.{i}", "--nanny-port", 9001, "--worker-port", 9000)
            cluster.worker(host, *options, prefix=network.at(host))
        time.sleep(1)
        command = (sys.executable, "-c", DRIVER, cluster.address, matrix.uri, folder / "found.npz", seconds)
        env = {name: value for name, value in cluster.env.items() if name != "DASK_CONFIG"}  # as drivers are
        trial = Trial(cluster.address, cluster.start(*network.at(driver), *command, env=env), folder / "found.npz")
        wait_until(lambda: trial.done() >= 8 or trial.driver.poll() is not None, 90, "eight tasks")
        assert trial.driver.poll() is None, trial.driver.log.read_text()
        yield trial


def configured(name):
    config = yaml.safe_load((ROOT / "conf" / "dask.yaml").read_text())["distributed"]
    return config["comm"]["timeouts"][name] if name in ("tcp", "connect") else config["scheduler"][name]


CHOSEN = ", ".join(f"{name} {configured(name)}" for name in ("tcp", "connect", "worker-ttl"))


@pytest.mark.parametrize(
    ("driver", "host"), [("driver", "left"), ("away", "away")], ids=["of a worker", "of the driver"]
)
def test_a_link_cut_and_healed_costs_the_time_and_nothing_else(network, rows, tmp_path, driver, host):
    matrix, wanted = rows
    with trial_of(network, tmp_path, matrix, 0.2, driver) as trial:
        network.cut(host)
        time.sleep(5)
        network.heal(host)
        healed = time.time()
        done = trial.answered(wanted, 120)
        print(f"link of {host} cut for 5 s and healed: right answer {done - healed:.1f} s after it ({CHOSEN})")
        assert not [line for line in trial.lines("said") if " lost" in line or "begin again" in line]


def test_a_link_cut_for_good_gives_its_tasks_to_the_other_worker(network, rows, tmp_path):
    matrix, wanted = rows
    with trial_of(network, tmp_path, matrix, 0.1) as trial:
        network.cut("left")
        cut = time.time()
        try:
            done = trial.answered(wanted, 180)
            lost = [line for line in trial.lines("said") if line.startswith("said left lost")]
            print(f"link cut for good: right answer {done - cut:.1f} s later ({CHOSEN})")
            assert lost and done - cut < 120
        finally:
            network.heal("left")


TASKS = """
import sys
from distributed import Client

with Client(sys.argv[1]) as client:
    print(client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))
"""


def test_a_driver_cut_off_for_good_says_so_and_leaves_no_task_on_the_cluster(network, rows, tmp_path):
    matrix, _ = rows

    def n_tasks():
        ask = [*network.at("driver"), sys.executable, "-c", TASKS, trial.address]
        return int(subprocess.run(ask, capture_output=True, text=True, check=True, timeout=60).stdout)

    with trial_of(network, tmp_path, matrix, 3.0, driver="away") as trial:
        assert n_tasks() > 0
        network.cut("away")
        cut = time.time()
        try:
            wait_until(lambda: not n_tasks(), 120, "the scheduler to forget its tasks")
            print(f"driver cut off for good: no task left on the scheduler {time.time() - cut:.1f} s later ({CHOSEN})")
            assert trial.driver.wait(120) == 2, trial.driver.log.read_text()
        finally:
            network.heal("away")
    (error,) = trial.lines("error")
    silent = [line for line in trial.lines("at") if "the scheduler has not answered for" in line]
    print(f"the driver ended {float(error.split()[1]) - cut:.1f} s after the cut: {error.split(maxsplit=2)[2]}")
    for line in silent:
        print(f"told {float(line.split()[1]) - cut:.1f} s after the cut: {line.split(maxsplit=2)[2]}")
    assert silent and "has gone, or cannot be reached any more. Start it and its workers again; with a state" in error
    assert float(error.split()[1]) - cut < 120
    assert "Traceback" not in trial.driver.log.read_text()
