"""Whatever the format, the order of units in it and the unit of its times: the spikes are those that were written."""

from __future__ import annotations

import pickle
import tracemalloc

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spike_writers import MANY, ONE, RATE, TEXT_IDS, write_nwb, write_phy

from lazypipe.io.spikes import Spikes, from_arrays, read_spikes

few = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
many = settings(max_examples=60, deadline=None)

trains_of = st.lists(st.integers(0, 2**40), min_size=1, max_size=12).map(sorted)
integer_trains = st.dictionaries(st.integers(0, 2**15 - 1), trains_of, min_size=1, max_size=5)
text_trains = st.dictionaries(st.text("abcµ 01", min_size=1, max_size=3), trains_of, min_size=1, max_size=5)


@st.composite
def interleaved(draw: st.DrawFn, trains) -> tuple[dict, np.ndarray, np.ndarray]:
    """Trains, and the same as (samples, units): units in any order, each one's samples in theirs."""
    trains = draw(trains)
    units = np.array(draw(st.permutations([unit_id for unit_id, train in trains.items() for _ in train])))
    samples = np.empty(len(units), np.int64)
    for unit_id, train in trains.items():
        samples[units == unit_id] = train
    return trains, samples, units


def same(spikes: Spikes, trains: dict) -> None:
    assert list(spikes) == list(trains)
    assert spikes.samples.dtype == np.int64
    for unit_id, train in trains.items():
        assert spikes[unit_id].tolist() == list(train)


@many
@given(case=st.one_of(interleaved(integer_trains), interleaved(text_trains)))
def test_units_may_be_interleaved_in_any_order(case):
    trains, samples, units = case
    spikes = from_arrays(samples, units)
    same(spikes, {unit_id: trains[unit_id] for unit_id in sorted(trains)})
    assert spikes.counts.tolist() == [len(trains[unit_id]) for unit_id in spikes]
    same(pickle.loads(pickle.dumps(spikes)), dict(spikes))


@many
@given(case=interleaved(integer_trains), data=st.data())
def test_chosen_units_come_in_the_order_asked_for(case, data):
    trains, samples, units = case
    wanted = data.draw(
        st.lists(st.one_of(st.sampled_from(sorted(trains)), st.integers(-5, 99)), min_size=1, unique=True)
    )
    expected = {unit_id: trains.get(unit_id, []) for unit_id in wanted}
    same(read_spikes(from_arrays(samples, units), units=wanted), expected)
    same(read_spikes(trains, units=np.array(wanted)), expected)


@pytest.mark.parametrize("format", MANY)
@few
@given(data=st.data())
def test_round_trip_of_many_units(format, tmp_path, data):
    kind = data.draw(st.sampled_from([integer_trains, text_trains])) if format in TEXT_IDS else integer_trains
    trains, samples, units = data.draw(interleaved(kind))
    write, options = MANY[format]
    path = write(tmp_path, samples, units)
    same(read_spikes(path, **options), {unit_id: trains[unit_id] for unit_id in sorted(trains)})
    last = max(trains)
    nobody = "nobody" if isinstance(last, str) else -7
    same(read_spikes(f"file://{path}", units=[nobody, last], **options), {nobody: [], last: trains[last]})


@pytest.mark.parametrize("format", ONE)
@few
@given(samples=st.lists(st.integers(0, 999), max_size=20).map(sorted))
def test_round_trip_of_one_unit(format, tmp_path, samples):
    write, options = ONE[format]
    path = write(tmp_path, np.array(samples, dtype=np.int64))
    expected = [0, *samples] if format == "no suffix" else samples
    same(read_spikes(path, **options), {0: expected})
    same(read_spikes(path, units=[4, 0], **options), {4: [], 0: expected})


@pytest.mark.parametrize("rate", [30_000.0, 24414.0625, 25_000.0, 20_833 + 1 / 3])
def test_every_sample_over_the_rate_is_that_sample(rate):
    k = np.arange(3_000_000)
    for start in (0.0, 0.1, 7 / 3, 1234.5678, 1.7e9, -60.0):
        options = {"sampling_rate": rate, "start_time": start}
        np.testing.assert_array_equal(read_spikes(start + k / rate, times="s", **options)[0], k)
        if start in (0.0, 0.1):
            np.testing.assert_array_equal(read_spikes((start + k / rate) * 1000, times="ms", **options)[0], k)


@many
@given(
    k=st.lists(st.integers(0, 10**12), min_size=1, max_size=50).map(sorted),
    rate=st.floats(1.0, 1e6),
    jitter=st.floats(-0.45, 0.45),
)
def test_times_go_to_the_nearest_sample(k, rate, jitter):
    k = np.maximum(np.array(k), 1)
    spikes = read_spikes({"a": (k + jitter) / rate}, times="s", sampling_rate=rate)
    np.testing.assert_array_equal(spikes["a"], k)
    assert spikes.sampling_rate == rate


def test_times_in_whole_milliseconds():
    spikes = read_spikes(np.array([0, 1, 1, 250], np.uint16), times="ms", sampling_rate=30_000)
    assert spikes[0].tolist() == [0, 30, 30, 7500]


@many
@given(
    counts=st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), max_size=12),
    dtype=st.sampled_from([np.uint8, np.int64, np.float32, bool]),
    fortran=st.booleans(),
)
def test_counts_of_several_units(counts, dtype, fortran, tmp_path_factory):
    counts = np.array(counts, dtype).reshape(-1, 3)
    expected = {unit: np.repeat(np.arange(len(counts)), counts[:, unit].astype(int)).tolist() for unit in range(3)}
    if fortran:
        counts = np.asfortranarray(counts)
    path = tmp_path_factory.getbasetemp() / "counts.npy"
    np.save(path, counts)
    for source in (path, counts, counts[::1, :]):
        same(read_spikes(source, counts=True), expected)
    same(read_spikes(path, counts=True, units=[2, 5]), {2: expected[2], 5: []})
    same(read_spikes(dict(enumerate(counts.T)), counts=True), expected)


def test_counts_are_read_by_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("lazypipe.io.spikes.counts.COUNTS_AT_ONCE", 1 << 16)
    counts = np.zeros(1 << 23, np.uint8)
    counts[[3, 65_535, 65_536, 8_000_000]] = [1, 2, 3, 1]
    np.save(tmp_path / "c.npy", counts)
    np.save(tmp_path / "b.npy", counts > 0)
    read_spikes(np.zeros(1, bool))
    tracemalloc.start()
    spikes = read_spikes(tmp_path / "c.npy", counts=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spikes[0].tolist() == [3, 65_535, 65_535, 65_536, 65_536, 65_536, 8_000_000]
    assert peak < 1 << 20
    assert read_spikes(tmp_path / "b.npy")[0].tolist() == [3, 65_535, 65_536, 8_000_000], "truth values need no counts="


def test_text_is_read_by_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("lazypipe.io.spikes.text.BYTES_AT_ONCE", 5)
    (tmp_path / "s.txt").write_text("# a\n1\n\n20 # b\n300\n4e2\n 5000 \n+60000")
    assert read_spikes(tmp_path / "s.txt")[0].tolist() == [1, 20, 300, 400, 5000, 60000]
    (tmp_path / "c.txt").write_text("0\n2\n0\n1\n")
    assert read_spikes(tmp_path / "c.txt", counts=True)[0].tolist() == [1, 1, 3]


def test_open_spikes_arrays_and_dicts(tmp_path):
    spikes = read_spikes({7: [1, 1, 2], 3: np.array([], np.int64), 5: np.array([False, True])})
    same(spikes, {7: [1, 1, 2], 3: [], 5: [1]})
    assert read_spikes(spikes) is spikes
    assert read_spikes(spikes, sampling_rate=30_000) is spikes
    same(read_spikes({"b": [1.0], "a": [2]}), {"b": [1], "a": [2]})
    given_array = np.array([3, 4])
    same(one := read_spikes(given_array), {0: [3, 4]})
    given_array[:] = 0
    assert one[0].tolist() == [3, 4], "not a view of what was given"
    assert from_arrays(np.array([1]), sampling_rate=30_000).sampling_rate == 30_000
    np.save(tmp_path / "bare.npy", [3, 4])
    same(read_spikes((tmp_path / "bare.npy").rename(tmp_path / "bare")), {0: [3, 4]})


def test_an_array_of_either_kind_in_one_npz(tmp_path):
    np.savez(tmp_path / "both.npz", samples=[3], times=[1.0])
    assert read_spikes(tmp_path / "both.npz")[0].tolist() == [3]
    assert read_spikes(tmp_path / "both.npz", times="s", sampling_rate=10)[0].tolist() == [10]
    np.savez(tmp_path / "none.npz", samples=[], units=[])
    same(read_spikes(tmp_path / "none.npz", units=["a"]), {"a": []})


def test_columns_by_name(tmp_path):
    path = tmp_path / "s.parquet"
    pq.write_table(pa.table({"unit": ["b", "a"], "cluster": [2, 1], "sample": [3, 4], "time": [0.5, 0.6]}), path)
    same(read_spikes(path, unit_column="cluster"), {1: [4], 2: [3]})
    same(read_spikes(path, unit_column="unit", times="s", sampling_rate=10), {"a": [6], "b": [5]})
    pq.write_table(pa.table({"sample": [3, 4]}), path)
    same(read_spikes(path), {0: [3, 4]})
    pq.write_table(pa.table({"unit": pa.array([1, 2]), "frame": pa.array([3.0, 4.0], pa.float32())}), path)
    same(read_spikes(path, time_column="frame"), {1: [3], 2: [4]})
    same(read_spikes(path, time_column="frame", times="ms", sampling_rate=1000), {1: [3], 2: [4]})


def test_categories_without_spikes_are_no_units(tmp_path):
    units = pa.DictionaryArray.from_arrays(pa.array([2, 1, 2]), pa.array(["nobody", "b", "a"]))
    pq.write_table(pa.table({"unit": units, "sample": [1, 2, 3]}), tmp_path / "s.parquet", row_group_size=2)
    same(read_spikes(tmp_path / "s.parquet"), {"a": [1, 3], "b": [2]})


def test_phy_folders(tmp_path):
    samples, units = np.array([5, 6, 7, 8]), np.array([2, 0, 2, 1])
    (tmp_path / "phy").mkdir()
    (tmp_path / "phy" / "params.py").write_text("raise SystemExit('nobody runs this')")
    (tmp_path / "phy" / "cluster_KSLabel.tsv").write_text("cluster_id\tKSLabel\n0\tgood\n1\tmua\n2\tgood\n9\tgood\n")
    folder = write_phy(tmp_path, samples, np.array([2, 0, 2, 2]), "spike_templates.npy")
    same(read_spikes(folder), {0: [6], 2: [5, 7, 8]})
    write_phy(tmp_path, samples, units)
    same(read_spikes(folder), {0: [6], 1: [8], 2: [5, 7]})
    same(read_spikes(folder, groups=["good"]), {0: [6], 2: [5, 7], 9: []})
    (folder / "cluster_group.tsv").write_text("cluster_id\tgroup\r\n0\tgood\r\n1\tnoise\r\n\r\n2\tmua\r\n")
    same(read_spikes(folder, groups=("good", "mua")), {0: [6], 2: [5, 7]})


def test_nwb_has_units_without_spikes(tmp_path):
    path = write_nwb(tmp_path, np.array([5, 6]), np.array([3, 3]))
    with h5py.File(path, "a") as file:
        for name, values in (("id", [9, 3, 4]), ("spike_times_index", [0, 2, 2])):
            del file["units"][name]
            file["units"][name] = values
    same(read_spikes(path, sampling_rate=RATE), {9: [], 3: [5, 6], 4: []})
    same(read_spikes(path, sampling_rate=RATE, units=[3, 9]), {3: [5, 6], 9: []})


def test_a_million_spikes_take_a_few_times_their_size(tmp_path):
    random = np.random.default_rng(0)
    samples, units = np.sort(random.integers(0, 10**9, 10**6)), random.integers(0, 400, 10**6)
    np.savez(tmp_path / "s.npz", samples=samples, units=units)
    read_spikes({0: [1]})
    tracemalloc.start()
    spikes = read_spikes(tmp_path / "s.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(spikes[17], samples[units == 17])
    assert peak < 6 * samples.nbytes
