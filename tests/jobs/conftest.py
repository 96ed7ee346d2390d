"""The command line as people call it, in a folder of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def write_rows(folder: Path) -> np.ndarray:
    """``rows.npy`` (60, 8), of columns about 3 whose spread falls."""
    rows = (np.random.default_rng(0).normal(size=(60, 8)) * np.arange(8, 0, -1) + 3).astype(np.float32)
    np.save(folder / "rows.npy", rows)
    return rows


class CommandLine:
    """Runs ``python -m jobs ...`` in ``folder``, which holds ``rows.npy`` (60, 8)."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows = write_rows(folder)

    def __call__(self, *arguments: str, file: str | None = None) -> subprocess.CompletedProcess:
        """Run a job, by name, or by its ``file`` (jobs/pca.py)."""
        program = ["-m", "jobs"] if file is None else [str(ROOT / file)]
        env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        return subprocess.run(
            [sys.executable, *program, *arguments],
            check=False,
            cwd=self.folder,
            env=env | {"COLUMNS": "100"} | ({"PYTHONPATH": str(ROOT)} if file is None else {}),
            capture_output=True,
            text=True,
            timeout=120,
        )

    def ok(self, *arguments: str, **options) -> str:
        """The output of a job that must succeed, and that must be quiet on stderr."""
        done = self(*arguments, **options)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    def refused(self, *arguments: str) -> str:
        """The one line on stderr of a job that must be refused, and must leave the folder as it was."""
        before = sorted(self.folder.rglob("*"))
        done = self(*arguments)
        assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        assert sorted(self.folder.rglob("*")) == before
        return done.stderr.strip()

    def result(self, out: str) -> dict:
        """The result.json in a folder, and its arrays by name."""
        folder = self.folder / out
        figures = json.loads((folder / "result.json").read_text())
        return figures | {path.stem: np.load(path) for path in folder.glob("*.npy")}


@pytest.fixture
def jobs(tmp_path):
    return CommandLine(tmp_path)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with ``rows.npy`` (60, 8) in it."""
    write_rows(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(tmp_path, capsys):
    """Calls the ``main`` of a job that must refuse in a line, and leave the folder as it was; gives that line."""

    def call(main, options, *words):
        before = sorted(tmp_path.rglob("*"))
        assert main([*(f"{name}={value}" for name, value in options.items() if value is not None), *words]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1, said
        assert sorted(tmp_path.rglob("*")) == before
        return said.err

    return call
