"""New recordings of a folder: each is taken once, whole, and what fails or is killed costs no other."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from jobs._incoming import Incoming
from jobs.recordings import main
from lazypipe.checkpoint import StateFolder

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = ("--folder", "incoming", "--window", "-3", "2", "--engine.kind", "serial", "--tracking.enabled", "false")
NOW = (*ARGUMENTS, "--settle", "0")


def record(folder, name, seed=0, *, spikes=True, bad=False):
    """A recording of 400 samples of 2 channels, and its spikes; what the average is."""
    values = np.random.default_rng(seed).normal(size=(400, 2))
    if bad:
        values[:] = np.nan
    (folder / "incoming").mkdir(exist_ok=True)
    np.save(folder / "incoming" / f"{name}.npy", values)
    if spikes:
        np.savez(folder / "incoming" / f"{name}.spikes.npz", samples=[50, 100, 120])
    return np.mean([values[at - 3 : at + 2] for at in (50, 100, 120)], axis=0)


def average(folder, name):
    """What a run left of a recording."""
    return zarr.open_group(str(folder / "results" / "recordings" / name / "sta.zarr"), mode="r")["mean"][0]


def statuses(said):
    """By recording, of the table."""
    return {line.split()[0]: line.split()[2] for line in said.splitlines() if line.split()[0].endswith(".npy")}


@pytest.fixture
def take(tmp_path, monkeypatch, capsys):
    """Run the job; its return code, the statuses that it told, and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, statuses(said.out), said.err

    return call


def test_each_recording_is_taken_once(take, tmp_path):
    expected = {name: record(tmp_path, name, seed) for seed, name in enumerate(("a", "b"))}
    assert take(*NOW)[:2] == (0, {"a.npy": "new", "b.npy": "new"})
    for name in expected:
        np.testing.assert_allclose(average(tmp_path, name), expected[name], rtol=1e-12)
    before = (tmp_path / "results" / "recordings" / "a" / "result.json").stat()
    c = record(tmp_path, "c", 3)
    assert take(*NOW)[:2] == (0, {"a.npy": "taken", "b.npy": "taken", "c.npy": "new"})
    np.testing.assert_allclose(average(tmp_path, "c"), c, rtol=1e-12)
    assert (tmp_path / "results" / "recordings" / "a" / "result.json").stat() == before


def test_one_that_changed_is_told_and_taken_again(take, tmp_path):
    record(tmp_path, "a")
    record(tmp_path, "b")
    assert take(*NOW)[0] == 0
    other = record(tmp_path, "a", 7)
    code, told, stderr = take(*NOW)
    assert (code, told) == (0, {"a.npy": "new", "b.npy": "taken"})
    assert "recordings: a.npy, which changed since it was taken\n" in stderr and "b.npy" not in stderr
    np.testing.assert_allclose(average(tmp_path, "a"), other, rtol=1e-12)


def test_one_waits_for_its_spikes_and_until_it_does_not_grow(take, tmp_path):
    record(tmp_path, "a", spikes=False)
    record(tmp_path, "b")
    growing = tmp_path / "incoming" / "b.npy"
    whole = growing.read_bytes()
    growing.write_bytes(whole[:3000])

    def grow():
        for stop in range(3100, 6001, 100):
            with open(growing, "ab") as file:
                file.write(whole[file.tell() : stop])
            time.sleep(0.1)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        code, told, _ = take(*ARGUMENTS, "--settle", "1")
    finally:
        writer.join()
    assert (code, told) == (0, {"a.npy": "waiting", "b.npy": "waiting"})
    assert not (tmp_path / "results" / "recordings" / "b").exists()
    growing.write_bytes(whole)
    np.savez(tmp_path / "incoming" / "a.spikes.npz", samples=[50, 100, 120])
    begun = time.monotonic()
    assert take(*ARGUMENTS, "--settle", "1")[:2] == (0, {"a.npy": "new", "b.npy": "new"})
    assert time.monotonic() - begun >= 1


def test_one_that_fails_stops_no_other_and_is_tried_a_few_times(take, tmp_path):
    record(tmp_path, "a", bad=True)
    record(tmp_path, "b")
    code, told, stderr = take(*NOW, "--tries", "2")
    assert (code, told) == (2, {"a.npy": "failed", "b.npy": "new"})
    assert stderr.splitlines()[-1].startswith("DataError: a.npy: 1 try of 2: ")
    assert "NaN at sample 47" in stderr.splitlines()[-1]
    assert take(*NOW, "--tries", "2")[:2] == (2, {"a.npy": "given", "b.npy": "taken"})
    code, told, stderr = take(*NOW, "--tries", "2")
    assert code == 0 and stderr == "" and told["a.npy"] == "given"
    good = record(tmp_path, "a", 5)
    assert take(*NOW, "--tries", "2")[:2] == (0, {"a.npy": "new", "b.npy": "taken"})
    np.testing.assert_allclose(average(tmp_path, "a"), good, rtol=1e-12)


def test_a_run_that_was_killed_redoes_only_the_recording_that_it_was_at(take, tmp_path):
    expected = {name: record(tmp_path, name, seed) for seed, name in enumerate("abcd")}
    command = [sys.executable, "-m", "jobs", "recordings", *NOW]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as run:
        while run.stderr.readline() != "recordings: c.npy\n":
            assert run.poll() is None
        run.send_signal(signal.SIGKILL)
    results = tmp_path / "results" / "recordings"
    done = {name for name in expected if (results / name).exists()}
    assert {"a", "b"} <= done and "d" not in done
    before = {name: (results / name / "result.json").stat().st_mtime_ns for name in ("a", "b")}
    code, told, stderr = take(*NOW)
    assert (code, told) == (0, {"a.npy": "taken", "b.npy": "taken", "c.npy": "new", "d.npy": "new"})
    assert before == {name: (results / name / "result.json").stat().st_mtime_ns for name in before}
    for name in expected:
        np.testing.assert_allclose(average(tmp_path, name), expected[name], rtol=1e-12)
        assert json.loads((results / name / "result.json").read_text())["n_used"] == 3
    assert sorted(path.name for path in results.iterdir()) == [".taken", "a", "b", "c", "d"]
    assert "changed" not in stderr


def test_recordings_of_one_stem_get_results_of_their_own(take, tmp_path):
    expected = record(tmp_path, "a")
    with h5py.File(tmp_path / "incoming" / "a.h5", "w") as file:
        file["values"] = np.load(tmp_path / "incoming" / "a.npy")
    (tmp_path / "incoming" / ".hidden.npy").write_bytes(b"")
    (tmp_path / "incoming" / "notes.txt").write_text("no recording")
    assert take(*NOW)[0] == 0
    for name in ("a", "a.npy"):
        np.testing.assert_allclose(average(tmp_path, name), expected, rtol=1e-12)


def test_a_folder_that_is_missing_is_made_where_that_is_asked_for(take, tmp_path):
    assert take(*NOW, "--make-folder") == (0, {}, "")
    record(tmp_path, "a")
    assert take(*NOW, "--make-folder")[:2] == (0, {"a.npy": "new"})


def test_what_cannot_work_is_refused_in_a_line(jobs, tmp_path):
    assert "incoming: no such folder. Make it (--make-folder), or pass another --folder." in jobs.refused(
        "recordings", *NOW
    )
    record(tmp_path, "a")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep")
    assert "names the same spikes for every recording" in jobs.refused("recordings", *NOW, "--spikes", "x.npz")
    assert "--settle" in jobs.refused("recordings", *ARGUMENTS, "--settle", "-1")
    assert "needs whole windows" in jobs.refused("recordings", *NOW, "--significance", "--edges", "nan")
    for option in ("--folder", "--out", "--state"):
        assert "is no local folder" in jobs.refused("recordings", *NOW, option, "s3://bucket/incoming")
    assert jobs("recordings", *NOW).returncode == 0
    assert "was made with ddof 1, this run has 0" in jobs.refused("recordings", *NOW, "--ddof", "0")
    done = jobs("recordings", *NOW, "--state", "mine")
    assert done.returncode == 2 and "holds other files (letter.txt)" in done.stderr


def test_a_result_that_is_someone_elses_is_not_replaced(take, tmp_path):
    record(tmp_path, "a")
    mine = tmp_path / "results" / "recordings" / "a"
    mine.mkdir(parents=True)
    (mine / "letter.txt").write_text("keep")
    for _ in range(2):
        code, told, stderr = take(*NOW)
        assert (code, told) == (2, {"a.npy": "failed"}) and "exists" in stderr
    assert (mine / "letter.txt").read_text() == "keep"


def old_times(*paths):
    """As a copy that keeps times leaves them."""
    for path in paths:
        os.utime(path, ns=(10**18, 10**18))


@pytest.mark.parametrize("change", ["an older time", "sizes of the same sum", "another name", "a file of no bytes"])
def test_a_mark_tells_every_change_of_what_is_below_a_folder(tmp_path, change):
    place, spikes = tmp_path / "a.zarr", tmp_path / "a.npz"
    place.mkdir()
    files = first, second = place / "c0", place / "c1"
    first.write_bytes(b"123")
    second.write_bytes(b"12345")
    spikes.touch()
    old_times(spikes, *files, place)
    file = Incoming("a.zarr", place, (spikes,))
    before, older = file.mark(), file.older_mark()
    assert before == file.mark() is not None
    if change == "an older time":
        os.utime(first, ns=(10**17, 10**17))
    elif change == "sizes of the same sum":
        first.write_bytes(b"12345")
        second.write_bytes(b"123")
        old_times(*files, place)
    elif change == "another name":
        first.rename(place / "d0")
        old_times(place)
    else:
        (place / "c2").touch()
        old_times(place / "c2", place)
    assert file.mark() != before
    assert file.older_mark() == older or change == "a file of no bytes"
    spikes.unlink()
    assert file.mark() is None


def test_one_that_goes_while_it_is_looked_at_has_no_mark_and_no_bytes(tmp_path, monkeypatch):
    (tmp_path / "a.npy").touch()
    file = Incoming("a.npy", tmp_path / "a.npy")
    assert file.mark() is not None

    def gone(*places):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "stat", gone)
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(Path, "is_dir", lambda path: False)
    assert file.mark() is None and file.nbytes() == 0


def test_one_that_a_copy_replaced_which_keeps_times_is_taken_again(take, tmp_path):
    record(tmp_path, "a")
    assert take(*NOW)[1] == {"a.npy": "new"}
    other = record(tmp_path, "a", 7)
    old_times(tmp_path / "incoming" / "a.npy")
    assert take(*NOW)[:2] == (0, {"a.npy": "new"})
    np.testing.assert_allclose(average(tmp_path, "a"), other, rtol=1e-12)


def test_the_ledger_is_saved_once_for_all_that_is_new(take, tmp_path, monkeypatch):
    saved, save = [], StateFolder.save
    monkeypatch.setattr(StateFolder, "save", lambda self, name, *state: [saved.append(name), save(self, name, *state)])
    for i in range(30):
        record(tmp_path, f"{i:02}", spikes=False)
    assert set(take(*NOW)[1].values()) == {"waiting"}
    assert saved == ["ledger"]
    assert set(take(*NOW)[1].values()) == {"waiting"}
    assert saved == ["ledger"]


def test_what_stands_in_an_older_ledger_is_not_taken_again(take, tmp_path):
    for seed, name in enumerate("abc"):
        record(tmp_path, name, seed)
    assert take(*NOW)[0] == 0
    incoming, state = tmp_path / "incoming", StateFolder(tmp_path / "results" / "recordings" / ".taken")
    header = state.load("ledger").header
    for name, entry in header["files"].items():
        found = [(incoming / one).stat() for one in (name, f"{Path(name).stem}.spikes.npz")]
        entry["mark"] = [sum(one.st_size for one in found), max(one.st_mtime_ns for one in found), len(found)]
    state.save("ledger", header, {})
    other = record(tmp_path, "b", 7)
    (incoming / "c.npy").rename(tmp_path / "c.npy")
    assert take(*NOW)[:2] == (0, {"a.npy": "taken", "b.npy": "new"})
    np.testing.assert_allclose(average(tmp_path, "b"), other, rtol=1e-12)
    (tmp_path / "c.npy").rename(incoming / "c.npy")
    assert take(*NOW)[:2] == (0, {"a.npy": "taken", "b.npy": "taken", "c.npy": "taken"})
    assert all(len(entry["mark"]) == 16 for entry in state.load("ledger").header["files"].values())
