"""The short form of the soak: ten scheduled runs, two at a time."""

import json
import sys

import pytest
from prefect_server import ROOT
from processes import process

RUNS = 10
MORE_FILES = 40  # what pools of connections open as they fill
MORE_OF_POSTGRES = 1500  # a process a connection, each with some fifty


@pytest.fixture(scope="module")
def soaked(tmp_path_factory):
    """The exit code of benchmarks/soak.py and what it said, its report, and its results folder."""
    folder = tmp_path_factory.mktemp("soak")
    command = [sys.executable, ROOT / "benchmarks" / "soak.py", "--minutes", "2", "--runs", RUNS]
    # On SIGTERM it ends its servers, each in a group of its own.
    with process(*command, "--patience", "6", "--results", folder, cwd=folder, grace=120) as soak:
        code = soak.wait(1800)
    said = soak.log.read_text()
    assert (folder / "soak.json").exists(), said[-3000:]
    return code, said, json.loads((folder / "soak.json").read_text()), folder


def test_every_scheduled_run_completes_once_with_the_same_bits(soaked):
    code, said, report, _ = soaked
    summary = report["summary"]
    assert code == 0, said
    assert summary["begun"] >= RUNS
    assert summary["completed"] == summary["begun"] == report["results"]
    assert report["tracked"] == {"FINISHED": summary["completed"]}
    assert report["bits"] == 1


def test_no_more_than_two_run_at_once(soaked):
    assert soaked[2]["summary"]["at_once"] <= 2


def test_servers_do_not_gather_open_files(soaked):
    growth = soaked[2]["summary"]["growth"]
    assert {"prefect", "mlflow", "worker", "dask-scheduler", "dask-worker-1", "dask-worker-2"} <= set(growth)
    for name, grown in growth.items():
        allowed = MORE_OF_POSTGRES if name == "postgres" else MORE_FILES
        assert grown["last_files"] <= grown["first_files"] + allowed, name


def test_it_leaves_a_page_and_a_figure(soaked):
    _, _, report, folder = soaked
    page = (folder / "soak.md").read_text()
    assert "Every run completed, once." in page
    for name in report["samples"]:
        assert f"| {name} |" in page
    assert (folder / "soak.png").read_bytes().startswith(b"\x89PNG")
