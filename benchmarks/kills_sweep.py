"""Sweeps that are killed with SIGKILL at random moments and started again: do they end with the same table?

    python benchmarks/kills_sweep.py [--engine serial|dask] [--kills 20] [--seed 0] [--models logistic sgd mlp]

A round is one sweep with a state folder, its whole process killed and started again until it ends by itself. Its
table, but for the seconds, its best cell and that one's coefficients are then compared with those of a sweep that
nobody disturbed. After every start the records that were there before it must be there still, with the same content
and time of change: a recorded cell is never computed again. Moments are uniform over what an undisturbed sweep
takes, from when its engine is open. Exits with 1 where anything differs or a sweep fails by itself.
"""

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
from common import describe_machine
from kills import ended, forked
from pyarrow import ipc

import lazypipe as lp
from lazypipe.engines import dask as _dask  # noqa: F401  imported before the forks, that they start at once
from lazypipe.models.sweep import regularization_sweep
from lazypipe.models.sweep.cells import TIMED

MEMORY = "256MiB"
N_ROWS, N_VALIDATION, N_FEATURES, N_CLASSES = 4_000, 500, 200, 10
SIZES = (50, 100, 200, 400, 700, 1_000, 1_500, 2_000, 3_000, 4_000)
SEEDS = (0, 1, 2)
PATIENCE = 600  # seconds an undisturbed sweep may take


@dataclass(frozen=True)
class Sweep:
    """What a process does, in a child of this one."""

    folder: Path  # of the data
    models: tuple[str, ...]
    engine: str

    def start(self, state: Path, result: Path) -> int:
        """Fork a child: its pid, once its engine is open."""
        return forked("sweep", lambda told: self._work(state, result, told))

    def _work(self, state: Path, result: Path, told: int) -> None:
        warnings.simplefilter("ignore")
        pairs = [(self.folder / f"{name}.npy", self.folder / f"{name}_y.npy") for name in ("x", "valid")]
        slots = {"workers": 2} if self.engine == "dask" else {}
        with lp.open_engine(self.engine, memory=MEMORY, **slots) as engine:
            os.write(told, b".")
            sweep = regularization_sweep(
                *pairs, sizes=SIZES, seeds=SEEDS, model=self.models, epochs=2, hidden=16, state=state, engine=engine
            )
        partial = result.with_name("partial")
        partial.mkdir(exist_ok=True)
        table = sweep.table.drop_columns(list(TIMED))
        with ipc.new_file(partial / "table.arrow", table.schema) as file:
            file.write_table(table)
        best = sweep.best
        assert best is not None
        arrays = {"confusion": best.confusion, "coef": best.coef, "intercept": best.intercept}
        cell = {name: value for name, value in best.cell.items() if name not in TIMED}
        arrays["cell"] = np.array(repr(sorted(cell.items())))
        np.savez(partial / "best.npz", **{name: value for name, value in arrays.items() if value is not None})
        partial.rename(result)


def write_data(folder: Path) -> None:
    """Classes that planes tell apart but for some noise."""
    rng = np.random.default_rng(0)
    planes = rng.normal(size=(N_FEATURES, N_CLASSES))
    for name, n in (("x", N_ROWS), ("valid", N_VALIDATION)):
        x = rng.normal(size=(n, N_FEATURES)).astype(np.float32)
        scores = x @ planes + rng.gumbel(scale=5.0, size=(n, N_CLASSES))
        np.save(folder / f"{name}.npy", x)
        np.save(folder / f"{name}_y.npy", scores.argmax(axis=1))


def records(state: Path) -> dict[Path, tuple[str, int]]:
    """Digest and time of change of what is recorded: the .json of each task and the arrays beside it."""
    found = {}
    for path in state.glob("*/*.json"):
        if path.name.startswith(".") or path.name == "identity.json":
            continue
        for one in (path, path.with_suffix(".npz")):
            with contextlib.suppress(FileNotFoundError):  # of a task without a best cell there are no arrays
                found[one] = hashlib.sha256(one.read_bytes()).hexdigest(), one.stat().st_mtime_ns
    return found


def differences(found: Path, wanted: Path) -> list[str]:
    """What differs in tables, best cells and their arrays, by a bit."""
    tables = []
    for folder in (found, wanted):
        with pa.memory_map(str(folder / "table.arrow")) as file:
            tables.append(ipc.open_file(file).read_all())
    mine, other = tables
    told = [name for name in other.column_names if not mine[name].equals(other[name])]
    if told:
        pairs = zip(mine.to_pylist(), other.to_pylist(), strict=True)
        told.append(next(f"first {one} instead of {another}" for one, another in pairs if one != another))
    with np.load(found / "best.npz") as a, np.load(wanted / "best.npz") as b:
        told += ["arrays of the best"] if a.files != b.files else []
        told += [f"best {key}" for key in b.files if key in a and not np.array_equal(a[key], b[key])]
    return told


@dataclass
class Tally:
    """What has happened so far."""

    kills: int = 0
    useful: int = 0  # of those, with a record there already and another still to come
    rounds: int = 0
    equal: int = 0
    changed: int = 0  # records that a later start changed or lost


def play(sweep: Sweep, folder: Path, seconds: float, most: int, n_records: int, tally: Tally) -> Path:
    """One round, with so many kills at most; the folder of its answer."""
    state, result = folder / "state", folder / "result"
    before: dict[Path, tuple[str, int]] = {}
    while True:
        pid = sweep.start(state, result)
        status = ended(pid, random.uniform(0, seconds) if tally.kills < most else PATIENCE)
        if status is None:
            os.kill(pid, signal.SIGKILL)
            status = ended(pid, 60)
            tally.kills += 1
        after = records(state)
        tally.changed += sum(after.get(path) != told for path, told in before.items())
        if status == 0:
            return result
        if status != -signal.SIGKILL:
            raise SystemExit(f"a sweep ended by itself with {status}")
        tally.useful += 0 < len([path for path in after if path.suffix == ".json"]) < n_records
        before = after


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("serial", "dask"), default="dask")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", nargs="+", default=["logistic"], metavar="MODEL")
    parser.add_argument("--folder", default=None, help="where the data go; a temporary folder by default")
    asked = parser.parse_args()
    random.seed(asked.seed)
    print(describe_machine())
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        write_data(folder)
        for model in asked.models:
            import_module(f"lazypipe.models.sweep.{model}")  # before the forks, as the engines
        sweep = Sweep(folder, tuple(asked.models), asked.engine)
        times = []
        for turn in range(2):  # the second time compiled loops and pages are warm
            calm = folder / f"calm-{turn}"
            calm.mkdir()
            pid = sweep.start(calm / "state", calm / "result")
            begun = time.monotonic()
            if ended(pid, PATIENCE) != 0:
                raise SystemExit("the undisturbed sweep failed")
            times.append(time.monotonic() - begun)
        wanted = calm / "result"
        n_records = len(list((calm / "state").glob("*/0*.json")))
        print(
            f"{', '.join(asked.models)} on {asked.engine}: {len(SIZES)} sizes x 4 strengths x {len(SEEDS)} seeds, "
            f"{times[-1]:.2f} s undisturbed, {n_records} tasks"
        )
        tally = Tally()
        begun = time.monotonic()
        while tally.kills < asked.kills:
            played = folder / f"round-{tally.rounds}"
            played.mkdir()
            result = play(sweep, played, times[-1], asked.kills, n_records, tally)
            tally.rounds += 1
            different = differences(result, wanted)
            tally.equal += not different
            if different:
                print(f"  differ: {', '.join(different)}", flush=True)
            shutil.rmtree(played)
            print(f"{tally.kills} kills, {tally.rounds} sweeps ended, {tally.equal} equal", file=sys.stderr, flush=True)
        took = time.monotonic() - begun
    print(f"{tally.kills} kills in {took:.0f} s, {tally.useful} of them with some tasks recorded and some not")
    print(f"{tally.rounds} sweeps ended, {tally.equal} with the same table and best cell as the undisturbed one")
    print(f"{tally.changed} records computed again, changed or lost")
    return int(tally.equal < tally.rounds or tally.changed > 0)


if __name__ == "__main__":
    sys.exit(main())
