"""Killed at any moment and started again, a run ends with the bits of one that nobody disturbed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

import lazypipe as lp
from lazypipe import checkpoint, plan
from lazypipe.checkpoint import StateFolder
from lazypipe.progress import StageStarted, TaskDone

RUN_NBYTES = 2**18  # a run a block, so that little data has the runs of much
GROUP = 4  # runs, of one worker and up to 64 runs
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def children():
    """Run a job (see killed.py) in a child of its own: its exit status."""
    command = [sys.executable, str(Path(__file__).with_name("killed.py"))]
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as server:

        def run(**job):
            server.stdin.write(json.dumps(job, default=str) + "\n")
            server.stdin.flush()
            return int(server.stdout.readline())

        yield run
        server.stdin.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A long and a wide matrix of 32 runs each, and one for tiles.

    In float64: few sums of float32 products are exact in float64, and would hide another order.
    """
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    np.save(folder / "long.npy", rng.normal(3, 1, (40_000, 32)))
    decay = np.arange(1, 101)[:, None] ** -0.5  # slow, so that gradient needs its passes
    np.save(folder / "wide.npy", decay * rng.normal(1, 1, (100, 12_800)))
    np.save(folder / "tiles.npy", rng.normal(3, 1, (4_000, 640)).astype(np.float32))
    return folder


JOBS = {
    "dbn": {"kind": "dbn", "source": "long.npy", "options": {"checkpoint_steps": 2, "fine_tuning": {"epochs": 3}}},
    "covariance": {"kind": "covariance", "source": "long.npy"},
    "pca covariance": {"kind": "pca", "source": "long.npy", "options": {"n_components": 4, "solver": "covariance"}},
    "pca gram": {"kind": "pca", "source": "wide.npy", "options": {"n_components": 4, "solver": "gram"}},
    "pca gradient": {"kind": "pca", "source": "wide.npy", "options": {"n_components": 4, "solver": "gradient"}},
    "pca long": {"kind": "pca", "source": "long.npy", "options": {"n_components": 4, "solver": "gradient"}},
    "pca scaled": {
        "kind": "pca",
        "source": "wide.npy",
        "options": {"n_components": 4, "solver": "gram", "scale": True},
    },
    "spikes": {"kind": "spikes", "source": "long.npy", "options": {"edges": "nan"}},
    "sweep": {"kind": "sweep", "source": "long.npy", "options": {"sizes": [50, 100, 200, 400, 800], "seeds": [0, 1]}},
    "tiles": {"kind": "tiles", "source": "tiles.npy", "memory": "16MiB"},
}


class Trial:
    """A job in a folder of its own, killed and started again; ``lines`` is what all its runs did."""

    def __init__(self, children, folder, job, data):
        folder.mkdir(exist_ok=True)
        self.children = children
        self.state, self.log, self.result = folder / "state", folder / "log", folder / "result.npz"
        self.job = {**job, "source": data / job["source"], "run_nbytes": RUN_NBYTES}
        self.job |= {"state": self.state, "log": self.log, "result": self.result}

    def run(self, *die):
        return self.children(**self.job, **({"die": die} if die else {}))

    def lines(self, word):
        return [line for line in self.log.read_text().splitlines() if line.startswith(word)]

    def answer(self):
        with np.load(self.result) as file:
            return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def undisturbed(children, data, tmp_path_factory):
    """The answer of a job without a state (tiles have one always), and its log: once each."""
    known = {}

    def run(name):
        if name not in known:
            trial = Trial(children, tmp_path_factory.mktemp("undisturbed"), JOBS[name], data)
            if JOBS[name]["kind"] != "tiles":
                trial.job["state"] = None
            assert trial.run() == 0
            known[name] = trial
        return known[name]

    return run


def assert_same_bits(trial, wanted):
    found, wanted = trial.answer(), wanted.answer()
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype
        np.testing.assert_array_equal(found[key], value, err_msg=key)


FOLDS = ["covariance", "pca covariance", "pca gram", "pca scaled", "spikes"]


@pytest.mark.parametrize("name", FOLDS)
@pytest.mark.parametrize("n", [1, 4, 18, 30])
def test_a_killed_fold_redoes_a_group_at_most(children, undisturbed, data, tmp_path, name, n):
    wanted = undisturbed(name)
    trial = Trial(children, tmp_path, JOBS[name], data)
    # The pass for the scales, where there is one, is kept whole: begin to count after it.
    log = wanted.lines("")
    fold = max(i for i, line in enumerate(log) if line.startswith("StageStarted") and "components" not in line)
    n_before = log[:fold].count("TaskDone")
    assert trial.run("TaskDone", n_before + n) == KILLED
    assert trial.run() == 0
    assert_same_bits(trial, wanted)
    assert len(wanted.lines("TaskDone")) >= 32
    assert len(trial.lines("TaskDone")) - len(wanted.lines("TaskDone")) <= GROUP


@pytest.mark.parametrize("moment", ["before replace", "after replace"])
def test_a_network_killed_at_checkpoints_ends_with_the_same_bits(undisturbed, children, data, tmp_path, moment):
    """In pre-training and in fine-tuning, in the middle of epochs too: each goes on from where the last one died."""
    wanted = undisturbed("dbn")
    trial = Trial(children, tmp_path, JOBS["dbn"], data)
    for n in (1, 3, 2, 5, 4, 6):
        assert trial.run(moment, n) == KILLED
    assert trial.run() == 0
    np.testing.assert_array_equal(trial.answer()["probabilities"], wanted.answer()["probabilities"])
    assert len(trial.lines("EpochDone")) <= len(wanted.lines("EpochDone")) + 6


def test_a_sweep_killed_twenty_times_ends_with_the_same_table_and_computes_no_recorded_cell_again(
    children, undisturbed, data, tmp_path
):
    wanted = undisturbed("sweep")
    trial = Trial(children, tmp_path, JOBS["sweep"], data)
    kinds = ["fit", "savez", "before replace", "after replace"]
    n_kills = turn = 0
    while n_kills < 20:
        recorded = {path: path.read_bytes() for path in trial.state.glob("*/*.json")}
        n_fitted = len(trial.lines("fit")) if trial.log.exists() else 0
        ended = trial.run(kinds[turn % 4], 1 + turn % 3)
        assert ended in (KILLED, 0)
        turn, n_kills = turn + 1, n_kills + (ended == KILLED)
        assert all(path.read_bytes() == content for path, content in recorded.items())
        todo = 10 - sum(path.name != "identity.json" for path in recorded)
        assert len(trial.lines("fit")) - n_fitted <= todo
        if ended == 0:  # all is recorded: take the last records away, and go on killing
            for path in sorted(trial.state.glob("*/0*.json"))[-4:]:
                path.unlink()
    assert trial.run() == 0
    assert_same_bits(trial, wanted)


@pytest.mark.parametrize("name", ["pca gradient", "pca long"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.95])
def test_a_killed_iteration_redoes_a_pass_at_most(children, undisturbed, data, tmp_path, name, part):
    wanted = undisturbed(name)
    trial = Trial(children, tmp_path, JOBS[name], data)
    assert trial.run("TaskDone", int(part * len(wanted.lines("TaskDone"))) + 1) == KILLED
    assert trial.run() == 0
    assert_same_bits(trial, wanted)
    assert len(trial.lines("StageStarted")) - len(wanted.lines("StageStarted")) == 1
    # A run that is started once more recalls all that is kept, and gives the same.
    assert trial.run() == 0
    assert_same_bits(trial, wanted)


@pytest.mark.parametrize("name", ["covariance", "pca gradient", "pca gram", "spikes"])
@pytest.mark.parametrize("what", ["savez", "before replace", "after replace"])
def test_killed_while_it_saves(children, undisturbed, data, tmp_path, name, what):
    trial = Trial(children, tmp_path, JOBS[name], data)
    for n in (1, 2, 1):  # the second run dies at its second state, the third at its first
        assert trial.run(what, n) == KILLED
    assert trial.run() == 0
    assert_same_bits(trial, undisturbed(name))
    assert not [path for path in trial.state.iterdir() if "partial" in path.name]  # left by the dead, removed


def test_killed_again_and_again(children, undisturbed, data, tmp_path):
    trial = Trial(children, tmp_path, JOBS["covariance"], data)
    n_kills = 0
    while (status := trial.run("TaskDone", GROUP + 1)) == KILLED:
        n_kills += 1
    assert status == 0
    assert n_kills == 7
    assert_same_bits(trial, undisturbed("covariance"))


def test_killed_before_anything_is_saved_it_starts_over(children, undisturbed, data, tmp_path):
    trial = Trial(children, tmp_path, JOBS["covariance"], data)
    for _ in range(3):
        assert trial.run("TaskDone", 1) == KILLED
        assert [path.name for path in trial.state.iterdir()] == [".lock"]
    assert trial.run() == 0
    assert_same_bits(trial, undisturbed("covariance"))


@pytest.mark.parametrize("n", [1, 9])
def test_tiles_killed_between_tasks(children, undisturbed, data, tmp_path, n):
    wanted = undisturbed("tiles")
    trial = Trial(children, tmp_path, JOBS["tiles"], data)
    assert trial.run("TaskDone", n) == KILLED
    assert not trial.state.exists()
    assert trial.run() == 0
    assert_same_bits(trial, wanted)
    assert len(wanted.lines("TaskDone")) > 16
    assert sorted(trial.lines("wrote")) == sorted(wanted.lines("wrote"))  # none was made twice


@pytest.mark.parametrize("what", ["before replace", "after replace"])
def test_tiles_killed_while_a_file_is_put_in_place(children, undisturbed, data, tmp_path, what):
    wanted = undisturbed("tiles")
    for n in (1, 2, 3, 4, 20):  # the first are of the store itself: what it holds, and its arrays
        trial = Trial(children, tmp_path / f"{n}", JOBS["tiles"], data)
        assert trial.run(what, n) == KILLED
        assert trial.run() == 0
        assert_same_bits(trial, wanted)
        assert set(trial.lines("wrote")) <= set(wanted.lines("wrote"))
        assert not list(trial.state.rglob(".*"))


# What follows runs in this process.


class Recorded:
    """The serial engine with many runs, and what its progress tells."""

    def __init__(self, memory="64MiB"):
        self.events = []
        self.engine = lp.open_engine("serial", memory=memory, progress=lp.progress.Progress((self.events.append,)))

    def covariance(self, source, **options):
        self.events.clear()
        return lp.covariance(source, engine=self.engine, **options)

    def pca(self, source, *, state=None, restart=False, **options):
        self.events.clear()
        return lp.PCA(**options).fit(source, engine=self.engine, state=state, restart=restart)

    @property
    def stages(self):
        return [event for event in self.events if isinstance(event, StageStarted)]

    @property
    def n_tasks(self):
        return sum(isinstance(event, TaskDone) for event in self.events)


@pytest.fixture
def serial(monkeypatch):
    monkeypatch.setattr(plan, "RUN_NBYTES", RUN_NBYTES)
    recorded = Recorded()
    with recorded.engine:
        yield recorded


@pytest.fixture
def rows():
    return np.random.default_rng(1).normal(3, 1, (20_000, 64))


def whole_state(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.state")}


def assert_refused(run, folder, match):
    """One line of DataError, and not a byte of the state changed."""
    before = whole_state(folder)
    with pytest.raises(lp.DataError, match=match) as caught:
        run()
    assert "\n" not in str(caught.value)
    assert whole_state(folder) == before


def assert_near(found, wanted):
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-12)
    np.testing.assert_allclose(
        found.covariance, wanted.covariance, rtol=0, atol=1e-12 * np.abs(wanted.covariance).max()
    )
    assert found.n_rows == wanted.n_rows


def write_npy(folder, x):
    np.save(folder / "x.npy", x)
    return folder / "x.npy"


def write_parquet(folder, x):
    """A part for every 5,000 rows; those that are there already stay as they are."""
    source = folder / "x"
    source.mkdir(exist_ok=True)
    for start in range(0, len(x), 5_000):
        part = source / f"{start:06d}.parquet"
        if not part.exists():
            pq.write_table(pa.table({f"c{j}": column for j, column in enumerate(x[start : start + 5_000].T)}), part)
    return source


def write_zarr(folder, x):
    """Chunks of 4,000 rows, appended to."""
    source = folder / "x.zarr"
    if not source.exists():
        zarr.create_array(str(source), shape=(0, x.shape[1]), chunks=(4_000, x.shape[1]), dtype=x.dtype)
    array = zarr.open_array(str(source))
    n = array.shape[0]
    array.resize(x.shape)
    array[n:] = x[n:]
    return source


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("write", "n", "compared"),
    [(write_npy, 15_000, 15_000), (write_parquet, 15_000, 0), (write_zarr, 12_000, 0), (write_zarr, 15_000, 3_000)],
)
def test_of_grown_data_the_new_rows_alone_are_folded(serial, rows, tmp_path, write, n, compared, weighted):
    weights = np.random.default_rng(2).integers(0, 4, len(rows)).astype(float) if weighted else None

    def options(n):
        return {"row_weights": None if weights is None else weights[:n]}

    source = write(tmp_path, rows[:n])
    serial.covariance(source, state=tmp_path / "state", **options(n))
    write(tmp_path, rows)
    grown = serial.covariance(source, state=tmp_path / "state", **options(len(rows)))
    checks = [stage for stage in serial.stages if stage.title == "comparing what the state holds"]
    assert len(checks) == (compared > 0)  # a file that is as it was is not even opened
    assert sum(stage.n_bytes for stage in serial.stages if stage not in checks) == rows[n:].nbytes
    assert_near(grown, serial.covariance(source, **options(len(rows))))
    again = serial.covariance(source, state=tmp_path / "state", **options(len(rows)))
    assert serial.n_tasks == 0
    np.testing.assert_array_equal(again.covariance, grown.covariance)


def test_old_parquet_parts_are_not_read(serial, rows, tmp_path, monkeypatch):
    source = write_parquet(tmp_path, rows[:15_000])
    serial.covariance(source, state=tmp_path / "state")
    write_parquet(tmp_path, rows)
    read = []
    read_row_group = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *a, **k: read.append(a[0]) or read_row_group(*a, **k))
    serial.covariance(source, state=tmp_path / "state")
    assert len(read) == serial.n_tasks  # of the one new part


def test_grown_while_it_was_killed(children, serial, tmp_path, rows):
    """A state half-way through 15,000 rows meets 20,000: it folds the rest, and ends near the whole."""
    source = write_npy(tmp_path, rows[:15_000])
    trial = Trial(children, tmp_path / "trial", {"kind": "covariance", "source": source}, tmp_path)
    assert trial.run("TaskDone", 10) == KILLED
    write_npy(tmp_path, rows)
    grown = serial.covariance(source, state=trial.state)
    # Two groups of four runs were saved, 512 rows a run.
    assert sum(s.n_bytes for s in serial.stages if s.title.startswith("covariance")) == rows[8 * 512 :].nbytes
    assert_near(grown, serial.covariance(source))


def test_other_numbers_of_workers_give_the_same_bits(children, undisturbed, data, tmp_path, monkeypatch, serial):
    """The groups of a state keep their size: subtrees of two sizes would not be those of one tree."""
    trial = Trial(children, tmp_path, JOBS["covariance"], data)
    assert trial.run("TaskDone", 10) == KILLED
    monkeypatch.setattr(serial.engine, "slots", 8, raising=False)
    found = serial.covariance(data / "long.npy", state=trial.state)
    np.testing.assert_array_equal(found.covariance, undisturbed("covariance").answer()["covariance"])


def test_a_file_that_was_only_touched_is_compared_and_taken(serial, rows, tmp_path):
    source = write_npy(tmp_path, rows)
    first = serial.covariance(source, state=tmp_path / "state")
    os.utime(source, (1, 1))
    again = serial.covariance(source, state=tmp_path / "state")
    assert [stage.title for stage in serial.stages] == ["comparing what the state holds"]
    np.testing.assert_array_equal(again.covariance, first.covariance)


def test_old_rows_that_changed_are_named(serial, rows, tmp_path):
    source = write_npy(tmp_path, rows[:15_000])
    serial.covariance(source, state=tmp_path / "state")
    rows[7_000, 5] += 1e-9
    write_npy(tmp_path, rows)
    assert_refused(
        lambda: serial.covariance(source, state=tmp_path / "state"),
        tmp_path / "state",
        r"x\.npy: rows 6,656 to 7,168 changed since .*covariance\.state was saved",
    )
    write_npy(tmp_path, rows[:10_000])
    assert_refused(
        lambda: serial.covariance(source, state=tmp_path / "state"),
        tmp_path / "state",
        r"has 10,000 rows, the state .* holds 15,000 of it: it shrank",
    )
    grown = serial.covariance(source, state=tmp_path / "state", restart=True)
    np.testing.assert_array_equal(grown.covariance, serial.covariance(source).covariance)


def test_a_part_put_before_the_others_moves_their_rows(serial, rows, tmp_path):
    """It is a copy of the first part, of whole blocks: only what comes after it is no longer what it was."""
    source = tmp_path / "x"
    source.mkdir()
    for part, values in (("b", rows[:5_120]), ("c", rows[5_120:10_240])):
        pq.write_table(pa.table({f"c{j}": column for j, column in enumerate(values.T)}), source / f"{part}.parquet")
    serial.covariance(source, state=tmp_path / "state")
    shutil.copy(source / "b.parquet", source / "a.parquet")
    assert_refused(
        lambda: serial.covariance(source, state=tmp_path / "state"), tmp_path / "state", "rows .* changed since"
    )


def test_a_part_that_is_gone_is_noticed(serial, rows, tmp_path):
    source = write_zarr(tmp_path, rows)
    serial.covariance(source, state=tmp_path / "state")
    (source / "c" / "1" / "0").unlink()  # to Zarr a chunk of zeros
    assert_refused(
        lambda: serial.covariance(source, state=tmp_path / "state"), tmp_path / "state", "rows .* changed since"
    )


def test_weights_that_changed_are_named(serial, rows, tmp_path):
    source = write_npy(tmp_path, rows)
    weights = np.ones(len(rows))
    serial.covariance(source, state=tmp_path / "state", row_weights=weights)
    weights[600] = 2
    assert_refused(
        lambda: serial.covariance(source, state=tmp_path / "state", row_weights=weights),
        tmp_path / "state",
        r"row_weights of rows 0 to 2,500 changed",
    )


def test_another_question_is_refused(serial, rows, tmp_path):
    source = write_npy(tmp_path, rows)
    state = tmp_path / "state"
    serial.covariance(source, state=state)

    def refused(match, source=source, **options):
        assert_refused(lambda: serial.covariance(source, state=state, **options), state, match)

    refused('with nan "raise", this run has "omit"', nan="omit")
    refused("with weighted false, this run has true", row_weights=np.ones(len(rows)))
    refused("with center true, this run has false", center=False)
    shutil.copy(source, tmp_path / "y.npy")
    refused("made with source", source=tmp_path / "y.npy")
    write_npy(tmp_path, rows.astype(np.float32))
    refused('with dtype "float64", this run has "float32"')
    write_npy(tmp_path, rows[:, :32])
    refused("with n_columns 64, this run has 32")
    found = serial.covariance(source, state=state, restart=True)
    np.testing.assert_array_equal(found.covariance, serial.covariance(source).covariance)
    serial.covariance(source, state=state, ddof=0)  # a question of the end, not of the fold
    assert serial.n_tasks == 0


def test_a_state_of_another_format_is_refused(serial, rows, tmp_path, monkeypatch):
    source = write_npy(tmp_path, rows)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
        serial.covariance(source, state=tmp_path / "state")
    assert_refused(
        lambda: serial.covariance(source, state=tmp_path / "state"), tmp_path / "state", "is a state of format 2"
    )


def test_a_torn_state_is_refused(serial, rows, tmp_path):
    source = write_npy(tmp_path, rows[:2_000, :8])
    serial.covariance(source, state=tmp_path / "state")
    path = tmp_path / "state" / "covariance.state"
    whole = path.read_bytes()
    for cut in {0, 1, 10, len(whole) - 1, *range(0, len(whole), 97)}:
        path.write_bytes(whole[:cut])
        assert_refused(
            lambda: serial.covariance(source, state=tmp_path / "state"), path.parent, r"is torn, or no state of lazyp"
        )


@pytest.mark.parametrize("flip", [0x01, 0x08, 0x80, 0xFF])
def test_a_flipped_byte_is_noticed_or_harmless(tmp_path, flip):
    header, arrays = {"identity": {"job": "x"}}, {"sum": np.arange(5.0), "none": np.zeros((0, 2)), "n": np.asarray(3)}
    with StateFolder(tmp_path / "state") as folder:
        folder.save("x", header, arrays)
        path = folder.path / "x.state"
        whole = path.read_bytes()
        n_refused = 0
        for i in range(len(whole)):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ flip]) + whole[i + 1 :])
            try:
                found = folder.load("x")
            except lp.DataError as error:
                assert "\n" not in str(error)
                n_refused += 1
                continue
            assert found.header == header  # a time, or another thing that nobody reads
            assert found.arrays.keys() == arrays.keys()
            for key, value in arrays.items():
                np.testing.assert_array_equal(found.arrays[key], value)
        assert n_refused > 0.7 * len(whole)


def test_foreign_files_are_refused(serial, rows, tmp_path):
    source = write_npy(tmp_path, rows)
    state = tmp_path / "state"
    state.mkdir()
    (state / "thesis.tex").write_text("x")
    for restart in (False, True):
        assert_refused(
            lambda restart=restart: serial.covariance(source, state=state, restart=restart),
            state,
            r"holds other files \(thesis.tex\), so it is no state",
        )
    assert (state / "thesis.tex").read_text() == "x"
    (state / "thesis.tex").unlink()
    np.savez(state / "covariance.npz", x=rows[:3])
    (state / "covariance.npz").rename(state / "covariance.state")
    assert_refused(lambda: serial.covariance(source, state=state), state, "is torn, or no state of lazypipe")
    np.save(state / "x.npy", rows[:3])
    (state / "x.npy").rename(state / "covariance.state")
    assert_refused(lambda: serial.covariance(source, state=state), state, "is torn, or no state of lazypipe")
    with StateFolder(state, restart=True) as folder:
        folder.save("covariance", {"identity": {"job": "pca"}}, {})
    assert_refused(lambda: serial.covariance(source, state=state), state, "is no state of a fold")
    with pytest.raises(lp.DataError, match="cannot hold a state"):
        serial.covariance(source, state=source)


def test_one_run_at_a_time(serial, rows, tmp_path):
    source = write_npy(tmp_path, rows)
    with StateFolder(tmp_path / "state"):
        assert_refused(
            lambda: serial.covariance(source, state=tmp_path / "state"),
            tmp_path / "state",
            rf"another run holds this state \(process {os.getpid()} of ",
        )
    serial.covariance(source, state=tmp_path / "state")


# PCA


@pytest.fixture
def wide():
    """Slow to converge: eigenvalues fall as 1 / i."""
    rng = np.random.default_rng(3)
    left = np.linalg.qr(rng.normal(size=(300, 200)))[0]
    return (left * np.arange(1, 201) ** -0.5) @ rng.normal(size=(200, 3_000)) + 1e-3 * rng.normal(size=(300, 3_000))


@pytest.mark.parametrize("turned", [False, True])
def test_a_fit_of_grown_data_starts_from_the_old_components(serial, wide, tmp_path, turned):
    old, new = (wide[:, :2_990].T, wide.T) if turned else (wide[:299], wide)
    options = {"n_components": 4, "solver": "gradient", "tol": 1e-2}
    source = write_npy(tmp_path, np.ascontiguousarray(old))
    serial.pca(source, state=tmp_path / "state", **options)
    write_npy(tmp_path, np.ascontiguousarray(new))
    grown = serial.pca(source, state=tmp_path / "state", **options)
    cold = serial.pca(source, **options)
    assert grown.n_passes_ < cold.n_passes_
    assert grown.converged_
    np.testing.assert_allclose(grown.explained_variance_, cold.explained_variance_, rtol=2e-2)
    again = serial.pca(source, state=tmp_path / "state", **options)  # its passes are of that start, not of a new one
    np.testing.assert_array_equal(again.components_, grown.components_)
    assert again.n_passes_ == grown.n_passes_
    assert len(serial.stages) == (0 if turned else 1)  # the pass that writes the components out


def test_a_gram_matrix_of_fewer_rows_starts_over(serial, wide, tmp_path):
    source = write_npy(tmp_path, wide[:280])
    serial.pca(source, state=tmp_path / "state", n_components=4, solver="gram")
    write_npy(tmp_path, wide)
    grown = serial.pca(source, state=tmp_path / "state", n_components=4, solver="gram")
    np.testing.assert_array_equal(grown.components_, serial.pca(source, n_components=4, solver="gram").components_)


def test_a_group_of_stripes_is_told_by_its_columns(serial, wide, tmp_path):
    serial.pca(write_npy(tmp_path, wide), state=tmp_path / "state", n_components=4, solver="gram")
    told = [stage.title for stage in serial.stages if " to " in stage.title]
    assert len(told) > 1 and told[-1].endswith(", columns to 3,000")


def test_another_fit_is_refused_and_another_tol_is_not(serial, wide, tmp_path):
    source = write_npy(tmp_path, wide)
    state = tmp_path / "state"
    options = {"n_components": 4, "solver": "gradient", "tol": 1e-3}
    rough = serial.pca(source, state=state, **options)
    for other, match in (
        ({"seed": 1}, "with seed 0, this run has 1"),
        ({"n_components": 5}, "with n_components 4, this run has 5"),
        ({"center": False}, "with center true, this run has false"),
        ({"solver": "deflation"}, 'with solver "gradient", this run has "deflation"'),
    ):
        assert_refused(lambda other=other: serial.pca(source, state=state, **options | other), state, match)
    fine = serial.pca(source, state=state, **options | {"tol": 1e-8})
    assert fine.n_passes_recalled_ == rough.n_passes_ - 1
    np.testing.assert_array_equal(fine.components_, serial.pca(source, **options | {"tol": 1e-8}).components_)
    os.utime(source, (1, 1))
    assert_refused(lambda: serial.pca(source, state=state, **options), state, "changed since .* with as many rows")
    write_npy(tmp_path, wide[:200])
    assert_refused(lambda: serial.pca(source, state=state, **options), state, "it shrank")


def test_deflation_with_another_tol_takes_no_pass_of_another_vector(serial, wide, tmp_path):
    source = write_npy(tmp_path, wide[:60])
    options = {"n_components": 2, "solver": "deflation", "max_passes": 400}
    serial.pca(source, state=tmp_path / "state", **options, tol=1e-1)
    fine = serial.pca(source, state=tmp_path / "state", **options, tol=1e-3)
    wanted = serial.pca(source, **options, tol=1e-3)
    assert fine.n_passes_recalled_ >= 3
    np.testing.assert_array_equal(fine.components_, wanted.components_)


# Tiles


@pytest.fixture
def small_tiles(tmp_path):
    return write_npy(tmp_path, np.random.default_rng(4).normal(3, 1, (500, 256)).astype(np.float32))


class Stopped(Exception):
    """A run ends here."""


def stop_after(serial, n):
    """Leave a partial store, as a kill does."""

    def stop(event):
        if isinstance(event, TaskDone) and event.n_done == n:
            raise Stopped

    serial.engine.progress.listeners.append(stop)
    return stop


@pytest.fixture
def partial(serial, small_tiles, tmp_path):
    stop = stop_after(serial, 5)
    with pytest.raises(Stopped):
        serial.covariance(small_tiles, out=tmp_path / "cov.zarr")
    serial.engine.progress.listeners.remove(stop)
    return tmp_path / ".cov.zarr.partial-tiles"


def test_a_torn_tile_is_written_anew(serial, small_tiles, partial, tmp_path):
    wanted = serial.covariance(small_tiles, out=tmp_path / "wanted.zarr").covariance
    tile, mean = partial / "covariance" / "c" / "0" / "1", partial / "mean" / "c" / "0"
    for path in (tile, mean):
        path.write_bytes(path.read_bytes()[:-5])
    found = serial.covariance(small_tiles, out=tmp_path / "cov.zarr").covariance
    np.testing.assert_array_equal(found[:, :], wanted[:, :])
    np.testing.assert_array_equal(found.mean, wanted.mean)
    assert not partial.exists()
    with pytest.raises(lp.DataError, match=r"cov\.zarr: exists"):
        serial.covariance(small_tiles, out=tmp_path / "cov.zarr")


def test_a_damaged_tile_of_a_store_is_named(serial, small_tiles, tmp_path):
    found = serial.covariance(small_tiles, out=tmp_path / "cov.zarr").covariance
    tile = tmp_path / "cov.zarr" / "covariance" / "c" / "1" / "3"
    whole = tile.read_bytes()
    tile.write_bytes(whole[:-1])
    with pytest.raises(lp.DataError, match=r"covariance/c/1/3: this tile is torn"):
        found[:, :]
    found[:32, :32]  # the others are good
    tile.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(lp.DataError, match=r"c/1/3: this tile is torn: its checksum does not fit") as caught:
        found[:, :]
    assert "\n" not in str(caught.value)
    tile.unlink()
    with pytest.raises(lp.DataError, match=r"is missing"):
        found[:, :]


def test_tiles_of_other_data_are_refused(serial, small_tiles, partial, tmp_path):
    def refused(match, **options):
        before = {path: path.read_bytes() for path in partial.rglob("*") if path.is_file()}
        with pytest.raises(lp.DataError, match=match) as caught:
            serial.covariance(small_tiles, out=tmp_path / "cov.zarr", **options)
        assert "\n" not in str(caught.value)
        assert {path: path.read_bytes() for path in partial.rglob("*") if path.is_file()} == before

    refused("tiles of another run are there, with ddof 1; this one has 0", ddof=0)
    refused("with center True; this one has False", center=False)
    refused("with row_weights None; this one has", row_weights=np.ones(500))
    write_npy(tmp_path, np.zeros((600, 256), np.float32))
    refused("tiles of another run are there, with fingerprint")


def test_two_runs_cannot_write_the_same_tiles(serial, small_tiles, tmp_path):
    refusals = []

    def try_too(event):
        if isinstance(event, TaskDone) and not refusals:
            with pytest.raises(lp.DataError, match="another run is writing these covariance tiles") as caught:
                lp.covariance(small_tiles, engine=serial.engine, out=tmp_path / "cov.zarr")
            refusals.append(caught.value)

    serial.engine.progress.listeners.append(try_too)
    found = serial.covariance(small_tiles, out=tmp_path / "cov.zarr").covariance
    assert refusals
    assert np.isfinite(found[:, :]).all()


def test_a_partial_store_that_lacks_its_attributes_is_begun_again(serial, small_tiles, partial, tmp_path):
    (partial / "zarr.json").unlink()
    found = serial.covariance(small_tiles, out=tmp_path / "cov.zarr").covariance
    x = np.load(small_tiles).astype(np.float64)
    np.testing.assert_allclose(found[:, :], np.cov(x.T), atol=1e-5)


def test_group_sizes_are_powers_of_the_fan_in():
    from lazypipe.engines.checkpointed import MOST_GROUPS, group_size

    for slots in (1, 2, 3, 8, 100):
        sizes = [group_size(n, slots, 2**40) for n in range(1, 4097)]
        assert {size & (size - 1) for size in sizes} == {0}
        assert all(a <= b for a, b in pairwise(sizes))
        assert all(-(-n // size) <= MOST_GROUPS for n, size in enumerate(sizes, 1))
    assert group_size(8, 2, 2**20) == 16, "little data are one group"
