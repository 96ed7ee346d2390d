"""``python -m jobs plan`` of data and workers that are not there: its tables, and what it refuses in a line."""

import re
import time

import numpy as np
import pytest

from jobs.plan import main

PCA = "pca --shape 1000000,10000000 --dtype float32 --n-components 10 --engine.memory 8GiB"
STA = "sta --duration 10h --n-channels 384 --sampling-rate 30000 --window -30 60 --n-units 50"
ON_PAPER = {
    "pca": PCA,
    "pca in panels": "pca --shape 2000 500000 --layout panels --solver gradient",
    "covariance": "covariance --shape 1000000,5000",
    "covariance in tiles": "covariance --shape 5000,100000 --tiles cov.zarr",
    "linear": "linear --shape 1000000,500 --target 0",
    "sta": STA,
    "sta to disk": f"{STA} --arrays sta.zarr --engine.memory 512MiB",
}
HEADS = (
    r"workers +time +reading +computing +(writing +)?reducing +broadcasting +scheduling +driver +limited by",
    r"workers +read +by a worker +reduced +broadcast +returned +memory a worker +driver",
)


@pytest.fixture
def plan(tmp_path, monkeypatch, capsys):
    """Runs ``plan`` in an empty folder; gives its exit code, lines of output and of errors."""
    monkeypatch.chdir(tmp_path)

    def run(command, *more):
        code = main([*command.split(), *more])
        told = capsys.readouterr()
        return code, told.out.splitlines(), told.err.splitlines()

    return run


def tables(lines):
    """The rows of both tables, cells apart."""
    starts = [next(i for i, line in enumerate(lines) if re.fullmatch(head, line.strip())) for head in HEADS]
    found = []
    for start in starts:
        stop = lines.index("", start)
        found.append([re.split(r"  +", line.strip()) for line in lines[start + 1 : stop]])
    return found


@pytest.mark.parametrize("case", ON_PAPER)
def test_a_plan_on_paper_tells_time_and_bytes(case, plan, tmp_path):
    code, lines, errors = plan(ON_PAPER[case], "--workers", "100")
    assert (code, errors) == (0, [])
    assert lines[0].endswith("of <on paper>")
    times, sizes = tables(lines)
    assert [row[0] for row in times] == [row[0] for row in sizes] == ["1", "10", "100"]
    assert any(line.startswith("scales    until ") for line in lines)
    assert list(tmp_path.iterdir()) == [], "a plan leaves nothing behind"


def test_the_widest_matrix_is_planned_quickly(plan):
    begun = time.process_time()
    code, lines, _ = plan(PCA, "--workers", "1000")
    assert code == 0 and time.process_time() - begun < 2
    times, sizes = tables(lines)
    assert [row[0] for row in times] == ["1", "10", "100", "1,000"]
    assert sizes[0][6].endswith("GiB"), "memory of a worker"


def test_without_workers_there_is_the_plan_alone(plan):
    code, lines, _ = plan(PCA)
    assert code == 0 and lines[-1].startswith("note") and not any("limited by" in line for line in lines)


def test_a_source_that_is_there_is_planned_as_ever_and_predicted(plan, tmp_path):
    np.save(tmp_path / "rows.npy", np.ones((5_000, 40), np.float32))
    command = "covariance --source rows.npy --engine.kind serial --tracking.enabled false"
    code, alone, _ = plan(command)
    assert code == 0
    code, lines, errors = plan(command, "--workers", "4")
    assert (code, errors) == (0, [])
    same = [line for line in alone if not line.startswith("memory")]  # which counts the libraries loaded so far
    assert [line for line in lines[: len(alone)] if not line.startswith("memory")] == same
    times, sizes = tables(lines)
    assert [row[0] for row in times] == ["1", "4", "10", "100"]
    assert sizes[0][1] == "781KiB"


def test_spikes_that_are_there_are_predicted(plan, tmp_path):
    np.save(tmp_path / "rec.npy", np.zeros((20_000, 8), np.int16))
    np.savez(tmp_path / "spikes.npz", samples=np.arange(100, 19_000, 50))
    command = "sta --source rec.npy --spikes spikes.npz --window -20 20 --engine.kind serial --tracking.enabled false"
    code, lines, errors = plan(command, "--workers", "2")
    assert (code, errors) == (0, [])
    assert [row[0] for row in tables(lines)[0]] == ["1", "2", "10", "100"]


def test_a_rate_of_the_machine_changes_what_is_predicted(plan, tmp_path):
    (tmp_path / "fast.yaml").write_text("storage: 1000\nshared_storage: .inf\n")
    limits = []
    for more in ([], ["--machine.shared-storage", "inf", "--machine.storage", "1000"], ["--machine", "fast.yaml"]):
        code, lines, _ = plan("pca --shape 1000000,10000000 --layout panels --engine.memory 16GiB --workers 100", *more)
        assert code == 0
        limits.append(tables(lines)[0][-1][-1])
    assert limits == ["shared storage", "computing", "computing"]


REFUSED = {
    "no workers": (f"{PCA} --workers 0", "--workers: '0': input should be greater than or equal to 1"),
    "half a worker": (f"{PCA} --workers 1.5", "--workers: '1.5': input should be a valid integer"),
    "both": (f"{PCA} --source rows.npy", "--shape: together with --source, of which the data are read"),
    "both spikes": (f"{STA} --spikes s.npz", "--duration: together with --spikes"),
    "neither": ("pca --n-components 3", "--source: is missing; pass it, or --shape"),
    "no spikes": ("sta --source rec.npy --window -3 3", "--spikes: is missing; pass it, or --duration"),
    "a job that needs data": ("sweep --shape 100,10", "--shape: there is no model of the time of sweep, only of pca,"),
    "workers of such a job": ("mlp --workers=10", "--workers=10: there is no model of the time of mlp"),
    "one number": ("pca --shape 1000", "--shape: "),
    "no rows": ("pca --shape 0,1000", "<on paper>: is empty: no rows"),
    "no type": ("pca --shape 100,1000 --dtype floaty", "--dtype: 'floaty' is no type of numbers"),
    "a type of no matrix": ("pca --shape 100,1000 --dtype complex64", "<on paper>: holds dtype complex64"),
    "no layout": ("pca --shape 100,1000 --layout columns", "--layout: 'columns' is not one of rows, panels"),
    "too many components": ("pca --shape 5,1000 --n-components 9", "n_components=9 is more than the rank"),
    "no duration": (f"{STA} --duration long", "--duration: 'long' is no duration. Write it as 3600, 90min, 100h"),
    "less than a sample": (f"{STA} --duration 1e-9", "<on paper>: a recording without a sample"),
    "no channels": (
        "sta --duration 1h --sampling-rate 1000 --window -3 3",
        "--n-channels: is missing; a recording of a duration has to have one",
    ),
    "no rate": ("sta --duration 1h --n-channels 4 --window -3 3", "--sampling-rate: is missing"),
    "a standstill": (f"{PCA} --workers 2 --machine.network 0", "--machine.network: '0': input should be greater"),
    "no such rate": (f"{PCA} --machine.netwrok 1", "--machine.netwrok: unknown option; the nearest is"),
    "no such machine": (f"{PCA} --machine no.yaml", "no.yaml: cannot be read"),
    "too little memory": ("covariance --shape 1000000,30000", "It fits in memory='19GiB'; or write tiles to disk"),
    "more than there is": ("covariance --shape 1000000,10000000", "No machine has so much: write tiles to disk"),
    "sparse rows": ("covariance --source sparse.npz --workers 10", "there is no model of the time of 'covariance'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_planned_is_refused_in_a_line(case, plan, tmp_path):
    command, said = REFUSED[case]
    if case == "sparse rows":
        from scipy.sparse import csr_array, save_npz

        save_npz(tmp_path / "sparse.npz", csr_array(np.eye(40, 5, dtype=np.float32)))
        command += " --engine.kind serial --tracking.enabled false"
    code, lines, errors = plan(command)
    assert code == 2 and lines == [] and len(errors) == 1, (lines, errors)
    assert said in errors[0]


def test_the_command_line_itself(jobs):
    said = jobs.ok("plan", *PCA.split(), "--workers", "100")
    assert [row[0] for row in tables(said.splitlines())[0]] == ["1", "10", "100"]
    assert "--workers: '0'" in jobs.refused("plan", *PCA.split(), "--workers", "0")
    told = jobs.ok("plan", "sta", "--help")
    assert "--duration" in told and "--machine.network NUMBER" in told
