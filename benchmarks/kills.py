"""Runs that are killed with SIGKILL at random moments and started again: do they end with the same bits?

    python benchmarks/kills.py [--engine serial|dask|spark] [--job covariance|pca|tiles] [--kills 100] [--seed 0]

A round is one job with a state, killed and started again until it ends by itself; its answer is compared with
that of a run that nobody disturbed. For Dask and Spark a real cluster of two workers on this machine stays up, and of
the kills about half hit one (Dask: a worker, which its nanny brings back; Spark: a Python worker). Moments are
uniform over the time that an undisturbed run takes, from when its engine is open. Exits with 1 where any bit
differs or a run fails by itself.

What kills cost is counted in groups of blocks (covariance), passes (pca) or tasks (tiles): those that a run began
or, for tiles, did, that are not in the state after it, by the kills in that run.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from common import describe_machine
from servers import dask_cluster, spark_cluster

import lazypipe as lp
from lazypipe import plan
from lazypipe.engines import dask as _dask  # noqa: F401  imported before the forks, that they start at once
from lazypipe.io import tile_store
from lazypipe.models.tiles import tile_tasks
from lazypipe.progress import StageStarted, TaskDone

MEMORY = "128MiB"
SHAPES = {"covariance": (60_000, 400), "pca": (400, 60_000), "tiles": (20_000, 1_000)}


def forked(name: str, work: Callable[[int], None]) -> int:
    """The pid of a child that does ``work``, once that has written to the pipe it is given, or the child has died."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid:
        os.close(told)
        os.read(ready, 1)
        os.close(ready)
        return pid
    os.close(ready)
    status = 1
    try:
        work(told)
        status = 0
    except BaseException as error:
        print(f"  a {name} failed: {type(error).__name__}: {error}", flush=True)
    finally:
        os._exit(status)


@dataclass
class Job:
    """What a driver does, in a child of this process."""

    kind: str
    source: Path
    engine: str
    address: str | None
    n_groups: int = 0  # of an undisturbed run
    n_units: int = 0  # likewise

    def start(self, state: Path, log: Path, result: Path) -> int:
        """Fork a driver: its pid, once its engine is open."""
        return forked("driver", lambda told: self._work(state, log, result, told))

    def _work(self, state: Path, log: Path, result: Path, told: int) -> None:
        warnings.simplefilter("ignore")
        lines = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def listen(event: object) -> None:
            if isinstance(event, StageStarted | TaskDone):
                os.write(lines, type(event).__name__.encode() + b"\n")

        progress = lp.progress.Progress((listen,))
        with lp.open_engine(self.engine, address=self.address, memory=MEMORY, progress=progress) as engine:
            os.write(told, b".")
            if self.kind == "pca":
                pca = lp.PCA(4, solver="gradient", tol=1e-4).fit(self.source, engine=engine, state=state)
                arrays = (pca.explained_variance_, pca.components_, pca.mean_)
            elif self.kind == "covariance":
                found = lp.covariance(self.source, engine=engine, state=state)
                arrays = (found.mean, found.covariance)
            else:
                # Killed after its store was put in place, a run has nothing left to do.
                tiled = lp.TiledCovariance(state) if state.exists() else None
                tiled = tiled or lp.covariance(self.source, engine=engine, out=state).covariance
                arrays = (tiled.mean, tiled[:, :])
        partial = result.with_name("partial.npz")
        np.savez(partial, *arrays)
        partial.rename(result)

    def saved(self, state: Path) -> int:
        """Units of work that the state holds."""
        if self.kind == "pca":
            return len([path for path in state.glob("*.state") if path.stem != "fitted"])
        if self.kind == "covariance":
            with contextlib.suppress(FileNotFoundError), np.load(state / "covariance.state") as file:
                progress = json.loads(file["header"].tobytes())["progress"]
                return self.n_groups if not progress["cut"] else progress["n_runs_done"] // progress["group"]
            return 0
        store = state if state.exists() else state.with_name(f".{state.name}.partial-tiles")
        with contextlib.suppress(lp.DataError):
            attributes = tile_store.attributes_of(store)
            nbytes = attributes["tile"] ** 2 * np.dtype(attributes["dtype"]).itemsize
            return sum(
                all(
                    tile_store.is_whole(tile_store.tile_path(store, task.row, j), nbytes)
                    for j in range(task.start, task.stop)
                )
                for task in tile_tasks(-(-attributes["n"] // attributes["tile"]))
            )
        return 0

    @property
    def unit(self) -> str:
        """The progress event that counts its units of work."""
        return "TaskDone" if self.kind == "tiles" else "StageStarted"


@dataclass
class Tally:
    """What has happened so far."""

    kills: dict[str, int] = field(default_factory=dict)
    rounds: int = 0
    equal: int = 0
    failed: int = 0
    redone: list[float] = field(default_factory=list)  # a kill, by the kills of each run of a driver

    @property
    def n_kills(self) -> int:
        return sum(self.kills.values())

    def killed(self, what: str) -> None:
        self.kills[what] = self.kills.get(what, 0) + 1


def ended(pid: int, seconds: float) -> int | None:
    """The exit status of a child within so many seconds, negative for a signal; None where it goes on."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(min(0.005, max(0, deadline - time.monotonic())))


def count(log: Path, unit: str) -> int:
    return log.read_text().splitlines().count(unit) if log.exists() else 0


def play(job: Job, folder: Path, seconds: float, workers: Callable[[], list[int]], tally: Tally) -> Path:
    """One round: start, kill and start again until a run ends by itself; the path of its answer."""
    state, result = folder / "state", folder / "result.npz"
    run = 0
    while True:
        run += 1
        log = folder / f"log-{run}"
        before = job.saved(state)
        pid = job.start(state, log, result)
        status, n_kills = None, 0
        while status is None:
            status = ended(pid, random.uniform(0, seconds))
            if status is not None:
                break
            victims = workers()
            if victims and random.random() < 0.5:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(random.choice(victims), signal.SIGKILL)
                    tally.killed("worker")
                    n_kills += 1
                continue
            os.kill(pid, signal.SIGKILL)
            status = ended(pid, 60)
            tally.killed("driver")
            n_kills += 1
        if n_kills:
            lost = before + count(log, job.unit) - (job.n_units if status == 0 else job.saved(state))
            tally.redone.append(max(0, lost) / n_kills)
        if status == 0:
            return result
        if status != -signal.SIGKILL:
            tally.failed += 1
            if run > 1000:
                raise SystemExit("runs fail again and again")


def below(word: str) -> list[psutil.Process]:
    """Processes that this one has started, or those, whose command line has a word."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(word in part for part in child.cmdline()):
                found.append(child)
    return found


@contextlib.contextmanager
def dask_workers(folder: Path) -> Iterator[tuple[str, Callable[[], list[int]]]]:
    """The address of a scheduler with two workers, and these, which nannies have started, while both are there."""

    def workers() -> list[int]:
        found = [worker.pid for worker in below("spawn_main")]
        return found if len(found) == 2 else []

    with dask_cluster(folder) as address:
        yield address, workers


@contextlib.contextmanager
def spark_workers(folder: Path) -> Iterator[tuple[str, Callable[[], list[int]]]]:
    """The address of a master with two workers, and the Python workers, which a daemon of each has forked."""

    def workers() -> list[int]:
        found = {one.pid: one for one in below("pyspark.daemon")}
        with contextlib.suppress(psutil.Error):
            return [pid for pid, one in found.items() if one.ppid() in found]
        return []

    with spark_cluster(folder) as address:
        yield address, workers


@contextlib.contextmanager
def no_cluster(folder: Path) -> Iterator[tuple[None, Callable[[], list[int]]]]:
    """No address and no worker: the driver does it all."""
    yield None, list


CLUSTERS = {"serial": no_cluster, "dask": dask_workers, "spark": spark_workers}


def same_bits(found: Path, wanted: Path) -> bool:
    with np.load(found) as a, np.load(wanted) as b:
        return all(np.array_equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in b.files)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=sorted(CLUSTERS), default="serial")
    parser.add_argument("--job", choices=sorted(SHAPES), default="covariance")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default=None, help="where the data go; a temporary folder by default")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started goes
    random.seed(asked.seed)
    print(describe_machine())
    plan.RUN_NBYTES = 4 * 2**20  # so that little data has the runs of much

    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        # float64, where another order of sums shows.
        np.save(folder / "x.npy", np.random.default_rng(0).normal(3, 1, SHAPES[asked.job]))
        (folder / "cluster").mkdir()
        with CLUSTERS[asked.engine](folder / "cluster") as (address, workers):
            job = Job(asked.job, folder / "x.npy", asked.engine, address)
            tally = Tally()
            times = []
            for turn in range(2):  # the second time files and workers are warm
                calm = folder / f"calm-{turn}"
                calm.mkdir()
                pid = job.start(calm / "state", calm / "log", calm / "result.npz")
                begun = time.monotonic()
                if ended(pid, 600) != 0:
                    raise SystemExit("the undisturbed run failed")
                times.append(time.monotonic() - begun)
            wanted = calm / "result.npz"
            job.n_groups = count(calm / "log", "StageStarted")
            job.n_units = count(calm / "log", job.unit)
            print(f"{asked.job} on {asked.engine}: {times[-1]:.2f} s undisturbed, {job.n_units} units")
            begun = time.monotonic()
            while tally.n_kills < asked.kills:
                played = folder / f"round-{tally.rounds}"
                played.mkdir()
                result = play(job, played, times[-1], workers, tally)
                tally.rounds += 1
                tally.equal += same_bits(result, wanted)
                shutil.rmtree(played)
                told = f"{tally.n_kills} kills, {tally.rounds} runs ended, {tally.equal} with equal bits"
                print(told, file=sys.stderr, flush=True)
    redone = tally.redone or [0]
    unit = {"covariance": "groups", "pca": "passes", "tiles": "tasks"}[asked.job]
    kills = ", ".join(f"{n} of a {what}" for what, n in sorted(tally.kills.items()))
    print(f"{tally.n_kills} kills ({kills}) in {time.monotonic() - begun:.0f} s")
    print(f"{tally.rounds} runs ended, {tally.equal} with equal bits; {tally.failed} failed by themselves")
    print(f"{unit} redone a kill: {max(redone):g} at most, {np.mean(redone):.2f} on average")
    return int(tally.equal < tally.rounds or tally.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
