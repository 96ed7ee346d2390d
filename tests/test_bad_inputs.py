"""Every bad input in one line that tells what, where and what to do, with exit code 2, and nothing left behind.

The table is bad_inputs.py. Each row goes through the real command line, in a fork of a process that has the libraries;
a few go through a process of their own, too, and must say the same.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from bad_inputs import BAD, PARTS, Bad, good
from forked import Done, Forked

from jobs import JOBS

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = (
    *(f"jobs.{name}" for name in JOBS), "flows.stack.__main__", "flows.deploy", "lazypipe.engines.dask",
    "lazypipe.engines.serial", "lazypipe.figures", "lazypipe.models.sweep.verdict", "lazypipe.nets.dbn",
    "lazypipe.nets.mlp", "lazypipe.nets.rbm", "mlflow.pyfunc", "matplotlib.figure", "pyarrow.parquet", "zarr", "h5py",
)  # fmt: skip
IN_PROCESSES_OF_THEIR_OWN = (
    "a job that there is not", "NaN", "a window that is reversed", "a store of no kind",
    "a batch of more than all rows",
)  # fmt: skip
STRANGERS = ("MLFLOW_", "PREFECT_", "AWS_", "LAZYPIPE_", "SPARK_", "PYTEST_")
LOCK = ".lock"
OF_ALL_USERS = "dask-scratch-space"  # of Dask, in the temporary folder: locks of those who clean up there


def environment() -> dict[str, str]:
    """That of this process, without what it may say of servers; no GPU is seen."""
    here = {name: value for name, value in os.environ.items() if not name.startswith(STRANGERS)}
    return here | {"PYTHONPATH": str(ROOT), "COLUMNS": "100", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    with Forked(IMPORTS, environment()) as run:
        yield run


class Place:
    """A folder that a row is run in, and what lies around it."""

    def __init__(self, root: Path, forked: Forked):
        self.folder, self.temporary, self.beside = root / "here", root / "tmp", root / "beside"
        for path in (self.folder, self.temporary, self.beside):
            path.mkdir()
        self.forked = forked
        good(self.folder)

    def make(self, row: Bad, until: ExitStack) -> None:
        """What the row needs."""
        for made in row.made:
            if isinstance(made, str):
                done = self.run(made)
                assert done.code == 0, done
            elif hasattr(held := made(self.folder), "close"):
                until.callback(held.close)

    def run(self, command: str) -> Done:
        """In a fork."""
        return self.forked(command, self.folder, self.beside, {"TMPDIR": str(self.temporary)})

    def run_alone(self, command: str) -> Done:
        """In a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(command)],
            check=False, cwd=self.folder, env=environment() | {"TMPDIR": str(self.temporary)}, capture_output=True,
            text=True, timeout=300,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def listing(self) -> dict[str, tuple[int, int, int]]:
        """All that is there, files with size, rights and time of change; a lock that is there may be taken."""
        found = [path for root in (self.folder, self.temporary) for path in root.rglob("*")]
        return {
            str(path): (0, 0, 0)
            if path.is_dir() or path.name == LOCK
            else (status.st_size, status.st_mode, status.st_mtime_ns)
            for path in found
            if OF_ALL_USERS not in path.parts and (status := path.lstat())
        }


@pytest.fixture
def place(tmp_path: Path, forked: Forked) -> Place:
    return Place(tmp_path, forked)


def as_pattern(line: str, folder: Path) -> str:
    """A line of the table as a regular expression."""
    return ".*".join(map(re.escape, line.replace("{folder}", str(folder)).split("...")))


@pytest.mark.parametrize("name", [pytest.param(name, marks=row.marks) for name, row in BAD.items()])
def test_a_bad_input_is_told_in_a_line(name: str, place: Place) -> None:
    row = BAD[name]
    with ExitStack() as until:
        place.make(row, until)
        before = place.listing()
        done = place.run(row.command)
        assert done.code == 2, done
        assert done.stdout == ""
        assert done.stderr.endswith("\n") and done.stderr.count("\n") == 1, done.stderr
        assert re.fullmatch(as_pattern(row.line, place.folder), done.stderr[:-1]), done.stderr
        assert place.listing() == before


@pytest.mark.parametrize("name", IN_PROCESSES_OF_THEIR_OWN)
def test_a_process_of_its_own_says_the_same(name: str, place: Place) -> None:
    row = BAD[name]
    with ExitStack() as until:
        place.make(row, until)
        before = place.listing()
        assert place.run_alone(row.command) == place.run(row.command)
        assert place.listing() == before


def test_the_table_is_large_and_no_row_hides_another() -> None:
    assert len(BAD) == sum(map(len, PARTS)) >= 60
    jobs = [row.command.split()[1] for row in BAD.values() if row.command.startswith("jobs ")]
    assert set(jobs) >= set(JOBS)
