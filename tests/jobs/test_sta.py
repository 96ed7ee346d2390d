"""The job of spike-triggered averages: what it reads, saves, prints, logs and refuses."""

import csv
import json
import re
import warnings

import matplotlib.image
import mlflow
import numpy as np
import pytest
import zarr

import lazypipe as lp
from jobs._cli import parse
from jobs._recording import excluded
from jobs.sta import StaConfig, main

QUIET = ("--tracking.enabled", "false", "--engine.kind", "serial")
RATE = 1000
TRAINS = {3: [50, 120, 120, 180], 5: [2, 60, 199], 8: []}
STA = ("--source", "rec.dat", "--n-channels", "3", "--dtype", "int16", "--sampling-rate", str(RATE))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """``rec.dat``: int16 (200, 3), ``spikes.npz``: units 3 and 5; the current folder."""
    values = np.random.default_rng(0).integers(-300, 300, (200, 3)).astype(np.int16)
    values.tofile(tmp_path / "rec.dat")
    np.save(tmp_path / "rec.npy", values)
    spikes = [(sample, unit) for unit, train in TRAINS.items() for sample in train]
    samples, units = np.array(sorted(spikes)).T
    np.savez(tmp_path / "spikes.npz", samples=samples, units=units)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def averages(config=(), **options):
    recording = lp.open_recording("rec.npy", sampling_rate=RATE, gain=0.5, unit="µV")
    with warnings.catch_warnings(), lp.open_engine("serial") as engine:
        warnings.simplefilter("ignore", lp.DroppedSpikesWarning)
        return lp.spike_triggered_average(recording, "spikes.npz", (-20, 4), engine=engine, **options)


def group(out):
    return zarr.open_group(f"{out}/sta.zarr", mode="r")


def config_of(*arguments):
    return parse("sta", StaConfig, ["--source", "a", "--spikes", "b", *arguments])


def test_a_tracked_run_saves_what_the_library_finds(jobs, folder):
    said = jobs.ok(
        *("sta", *STA, "--gain", "0.5", "--unit", "µV", "--spikes", "spikes.npz", "--units", "3", "5", "8"),
        *("--window", "-20", "4", "--out", "out", "--engine.kind", "serial"),
    )
    expected = averages()
    found, store = jobs.result("out"), group("out")
    for name in ("mean", "std", "sem"):
        np.testing.assert_array_equal(store[name][:2], getattr(expected, name))
        assert np.isnan(store[name][2]).all()
        assert store[name].metadata.dimension_names == ("unit", "lag", "channel")
    for name in ("lags", "times"):
        np.testing.assert_array_equal(store[name][:], getattr(expected, name))
    assert store["unit_ids"][:].tolist() == [3, 5, 8]
    assert store["n_used"][:].tolist() == [4, 1, 0]
    assert store["n_dropped_edge"][:].tolist() == [0, 2, 0]
    attributes = dict(store.attrs)
    assert (attributes["sampling_rate"], attributes["unit"], attributes["window"]) == (RATE, "µV", [-20, 4])
    assert (attributes["source"], attributes["spikes"]) == (f"{folder}/rec.dat", f"{folder}/spikes.npz")

    with open("out/counts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    mean = expected.mean[0]
    best = int(np.argmax(np.ptp(mean, axis=0)))
    peak = int(np.argmax(np.abs(mean[:, best] - np.median(mean[:, best]))))
    assert [rows[0][name] for name in ("unit", "spikes", "used", "dropped_edge")] == ["3", "4", "4", "0"]
    assert int(rows[0]["best_channel"]) == best == expected.best_channel[0]
    assert float(rows[0]["peak_lag_ms"]) == expected.lags[peak]
    assert float(rows[0]["peak_value"]) == mean[peak, best]
    assert [rows[2][name] for name in ("unit", "spikes", "used", "best_channel", "peak_value")] == [
        "8",
        "0",
        "0",
        "",
        "",
    ]

    assert (found["n_used"], found["n_dropped"]["edge"], found["passes"]) == (5, 2, 1)
    assert found["source"]["shape"] == [200, 3]
    assert found["config"]["window"] == [-20, 4]
    assert 0 < found["peak_memory_bytes"] <= found["plan"]["peak_bytes"]
    assert all(matplotlib.image.imread(f"out/{name}.png").std() > 0.05 for name in ("sta", "units"))

    assert "baseline\n" in said and re.search(r"3 +4 +0 +\d +-?\d+ ms", said) and re.search(r"8 +0 +0 +- ", said)
    assert "5 of 7 used; left out: 2 beyond an edge" in said
    run_id = re.search(r"run (\w{32})", said)[1]
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    run = mlflow.get_run(run_id)
    assert mlflow.get_experiment(run.info.experiment_id).name == "sta"
    assert run.data.params["window"] == "[-20, 4]"
    assert run.data.metrics["n_used"] == 5
    assert run.data.metrics["unit_3/peak"] == pytest.approx(mean[peak, best])
    (logged,) = run.inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("rec.dat", found["source"]["fingerprint"])
    names = {item.path for item in mlflow.MlflowClient().list_artifacts(run_id)}
    assert {"sta.png", "units.png", "counts.csv", "result.json"} <= names


def test_help_teaches_with_an_example(jobs):
    said = jobs.ok("sta", "--help")
    assert "\n  python -m jobs sta --source rec.dat --n-channels 384" in said
    assert "--window NUMBER [NUMBER ...]" in said
    assert "--times {samples,s,ms}" in said


def test_options_reach_the_library(folder):
    np.savez("spikes.npz", times=np.array(TRAINS[3]) / RATE)
    options = ("--source", "rec.npy", "--sampling-rate", "1000", "--gain", "0.5", "--spikes", "spikes.npz")
    options += ("--times", "s", "--edges", "nan", "--spread", "false", "--result-dtype", "float32")
    options += ("--weights", "binary", "--exclude", "100,110", "60,70", "--chunk-length", "33")
    assert main([*options, "--window", "-20,4", "--window-unit", "ms", "--out", "out", *QUIET]) == 0
    np.savez("spikes.npz", samples=TRAINS[3])
    expected = averages(edges="nan", spread=False, weights="binary", exclude=[(100, 110), (60, 70)], dtype="float32")
    store = group("out")
    assert "std" not in store
    np.testing.assert_array_equal(store["mean"][:], expected.mean)
    np.testing.assert_array_equal(store["n_used"][:], expected.n_used)
    assert store["mean"].dtype == np.float32


def test_several_files_are_stretches(folder):
    values = np.load("rec.npy")
    for i in range(2):
        values[100 * i : 100 * i + 100].tofile(f"part{i}.dat")
    options = ("--n-channels", "3", "--dtype", "int16", "--sampling-rate", "1000", "--gain", "0.5", *QUIET)
    given = ("--source", "part0.dat", "part1.dat", "--spikes", "spikes.npz", "--window", "-20", "4")
    assert main([*given, *options, "--out", "out"]) == 0
    store = group("out")
    assert store["n_dropped_gap"][:].tolist() == [0, 0]
    np.testing.assert_array_equal(store["mean"][:], averages().mean)
    assert main([*given, *options, "--starts", "0", "1000", "--out", "apart"]) == 0
    assert group("apart")["n_used"][:].tolist() == [1, 1]


def test_significance_is_saved_and_told(folder, capsys):
    rng = np.random.default_rng(1)
    values = rng.normal(size=4000)
    spikes = np.flatnonzero(values > 1.5) + 5
    np.save("long.npy", values)
    np.savez("spikes.npz", samples=spikes[spikes < 3990])
    given = ("--source", "long.npy", "--spikes", "spikes.npz", "--window", "-10", "1", "--n-bootstrap", "50", *QUIET)
    assert main([*given, "--significance", "--out", "out"]) == 0
    store, found = group("out"), json.loads((folder / "out" / "result.json").read_text())
    assert store["significant"][0, :, 0].tolist() == [lag == -5 for lag in range(-10, 1)]
    assert store["z"].shape == store["p_values"].shape == (1, 11, 1)
    assert (store["band"][0] <= store["mean"][:]).all() and (store["mean"][:] <= store["band"][1]).all()
    (unit,) = found["units"]
    assert (unit["peak_lag"], unit["peak_lag_ms"], unit["n_significant"]) == (-5, None, 1)
    assert unit["z"] == pytest.approx(store["z"][0, 5, 0]) and unit["z"] > 10
    assert f"{unit['z']:.1f}" in capsys.readouterr().out
    assert found["passes"] > 1


def test_significance_of_an_average_larger_than_memory(folder, capsys):
    """That in the store is taken: another one in memory would not fit."""
    rng = np.random.default_rng(1)
    np.save("wide.npy", rng.integers(-300, 300, (3000, 300)).astype(np.int16))
    np.savez("spikes.npz", samples=np.sort(rng.integers(0, 3000, 200)), units=np.arange(200) % 50)
    given = ["--source", "wide.npy", "--spikes", "spikes.npz", "--window", "-300", "0", "--n-bootstrap", "20", *QUIET]
    given += ["--engine.memory", "32MiB", "--significance", "--out", "out"]
    assert main(given) == 2
    assert "or write it to disk (out='sta.zarr'; --arrays sta.zarr)" in capsys.readouterr().err
    assert main([*given, "--arrays", "big.zarr"]) == 0
    found = json.loads((folder / "out" / "result.json").read_text())
    assert found["plan"]["arrays_bytes"] <= found["plan"]["budget_bytes"]
    assert group("out")["z"].shape == (50, 300, 1)


def test_dropped_spikes_are_told_once_and_kept(folder, capsys):
    np.savez("spikes.npz", samples=[50, 60, 5000])
    given = ["--source", "rec.npy", "--spikes", "spikes.npz", "--window", "-3", "1", *QUIET, "--out", "out"]
    assert main(given) == 0
    told = capsys.readouterr().err
    assert re.fullmatch(r"Warning: \S+spikes.npz: 1 of 3 spikes lie beyond the end of \S+rec.npy .*\n", told)
    (kept,) = json.loads((folder / "out" / "result.json").read_text())["warnings"]
    assert told == f"Warning: {kept}\n"


def test_a_state_reads_what_is_new_alone(folder, capsys):
    values = np.load("rec.npy")
    given = ["--source", "grown.npy", "--spikes", "spikes.npz", "--window", "-20", "4", "--state", "state", *QUIET]
    np.savez("spikes.npz", samples=TRAINS[3][:1])
    np.save("grown.npy", values[:100])
    assert main([*given, "--out", "first"]) == 0
    np.savez("spikes.npz", samples=TRAINS[3])
    np.save("grown.npy", values)
    assert main([*given, "--out", "second"]) == 0
    assert "the others were in the state" in capsys.readouterr().out
    found = json.loads((folder / "second" / "result.json").read_text())
    assert 100 <= found["n_new_samples"] < 200
    np.testing.assert_array_equal(group("second")["mean"][:] * 0.5, averages().mean)


def test_arrays_go_to_a_store_of_their_own(folder, capsys):
    given = ["--source", "rec.npy", "--spikes", "spikes.npz", "--window", "-20", "4", *QUIET, "--arrays", "big.zarr"]
    assert main([*given, "--out", "out"]) == 0
    assert "mean" not in group("out") and group("out")["unit_ids"][:].tolist() == [3, 5]
    np.testing.assert_array_equal(zarr.open_group("big.zarr", mode="r")["mean"][:] * 0.5, averages().mean)
    assert "arrays    big.zarr" in capsys.readouterr().out
    assert main([*given, "--out", "again"]) == 2
    assert "big.zarr: exists. Pass --overwrite" in capsys.readouterr().err


def test_plan_tells_and_does_nothing(jobs, folder):
    before = sorted(folder.rglob("*"))
    said = jobs.ok("plan", "sta", *STA, "--spikes", "spikes.npz", "--window=-20,4", *QUIET)
    assert "200 rows x 3 columns, int16" in said
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "window"),
    [
        (("--window", "-149", "1"), (-149, 1)),
        (("--window", "-149,1"), (-149, 1)),
        (("--window=-149,1",), (-149, 1)),
        (("--window", "-.5", "1e-3"), (-0.5, 0.001)),
        (("--window", "-1e2,5"), (-100, 5)),
    ],
)
def test_a_window_may_be_written_in_many_ways(words, window):
    assert config_of(*words).window == window


def test_lists_may_be_written_in_many_ways():
    config = config_of(
        *(
            "--window",
            "0",
            "1",
            "--source",
            "c",
            "--units",
            "3",
            "5",
            "--groups",
            "good,mua",
            "--gain",
            "2",
            "--offset",
        ),
        *("0.5,1", "--starts", "0,7", "--exclude", "5,9"),
    )
    assert config.source == ("a", "c")
    assert (config.units, config.groups, config.starts) == ((3, 5), ("good", "mua"), (0, 7))
    assert (config.gain, config.offset, config.exclude) == (2, (0.5, 1), ((5, 9),))
    assert config_of("--window", "0", "1", "--units", "a7,12").units == ("a7", 12)
    values = {"source": ["a", "b"], "spikes": "s", "window": [0, 1], "units": ["x"], "exclude": [[5, 9]], "gain": [1]}
    config = StaConfig.model_validate(values)
    assert (config.source, config.units, config.exclude) == (("a", "b"), ("x",), ((5, 9),))
    assert StaConfig.model_validate(config.model_dump(mode="json")) == config


def test_intervals_may_be_in_a_file(folder):
    np.save("bad.npy", [[5, 9], [20, 30]])
    (folder / "bad.csv").write_text("start,stop\n5,9\n# a movement\n20, 30\n\n")
    for name in ("bad.npy", "bad.csv"):
        assert excluded(config_of("--window", "0", "1", "--exclude", name).exclude) == ((5, 9), (20, 30))
    for content in ("5,9,11\n", "a,b\nc,d\n", "5.5,9\n", "\0"):
        (folder / "bad.csv").write_text(content)
        with pytest.raises(lp.DataError, match="bad.csv: holds no rows of start, stop"):
            excluded("bad.csv")
    for content in (b"", b"PK\x03\x04", (folder / "spikes.npz").read_bytes()):
        (folder / "bad.npy").write_bytes(content)
        with pytest.raises(lp.DataError, match="bad.npy: holds no rows of start, stop"):
            excluded("bad.npy")


REFUSED = {
    "no spikes": ({"--spikes": None}, "--spikes: is missing; pass it"),
    "no window": ({"--window": None}, "--window: is missing; pass it"),
    "missing spikes": ({"--spikes": "no.npz"}, "no.npz: no such file or directory"),
    "missing source": ({"--source": "no.dat"}, "no.dat: no such file or directory"),
    "reversed": ({"--window": "1,-149"}, "--window: 1 -149 holds no sample"),
    "three bounds": ({"--window": "-149,0,1"}, "--window: give two numbers, start and stop"),
    "no number": ({"--window": "a,b"}, "--window: 'a' is no number"),
    "parts of samples": ({"--window": "-1.5,1"}, "window: (-1.5, 1) is not in whole samples"),
    "rate 0": ({"--sampling-rate": "0"}, "--sampling-rate: '0': input should be greater than 0"),
    "no rate": ({"--sampling-rate": None}, "does not tell its sampling_rate"),
    "half a sample": ({"--n-channels": "7"}, "rec.dat"),
    "times without meaning": ({"--times": "s"}, "holds samples, no times"),
    "no such unit of time": ({"--window-unit": "min"}, "--window-unit: 'min' is not one of samples, s, ms"),
    "exclude": ({"--exclude": "5,x"}, "--exclude: 'x' is no number"),
    "exclude what": ({"--exclude": "bad.txt"}, "'bad.txt' is neither start,stop in samples nor a .npy or .csv"),
    "exclude missing": ({"--exclude": "bad.npy"}, "bad.npy: cannot be read: No such file"),
    "significance of parts": ({"--significance": "true", "--edges": "nan"}, "--significance: needs whole windows"),
    "state in the result": ({"--state": "new/out/state"}, "new/out/state lies in the result folder new/out"),
    "budget": ({"--engine.memory": "1MiB"}, "memory: 1MiB is too small"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_a_line_and_leave_nothing(folder, refused, case):
    changed, said = REFUSED[case]
    given = dict(zip(STA[::2], STA[1::2], strict=True)) | {"--spikes": "spikes.npz", "--window": "-20,4"} | changed
    assert said in refused(main, given, "--out", "new/out", *QUIET)


def test_a_nan_is_refused_and_leaves_nothing(folder, capsys):
    values = np.load("rec.npy").astype(np.float32)
    values[119, 1] = np.nan
    np.save("nan.npy", values)
    before = sorted(folder.rglob("*"))
    given = ["--source", "nan.npy", "--spikes", "spikes.npz", "--window", "-20", "4", "--out", "new/out", *QUIET]
    assert main(given) == 2
    assert "nan.npy" in (told := capsys.readouterr().err) and told.count("\n") == 1
    assert sorted(folder.rglob("*")) == before
    assert main([*given, "--nan", "omit"]) == 0
    assert group("new/out")["n_dropped_nan"][:].tolist() == [2, 0]


def test_a_failed_write_leaves_nothing(folder, capsys, monkeypatch):
    def full(path, group):
        path.mkdir()
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("lazypipe.results.write_group", full)
    given = ["--source", "rec.npy", "--spikes", "spikes.npz", "--window", "-20", "4", "--out", "out", *QUIET]
    assert main(given) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert not [path for path in folder.iterdir() if "out" in path.name]
