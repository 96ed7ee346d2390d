"""The plan: a function of metadata and budget alone, refused before a byte is read, kept to."""

import re
import subprocess
import sys

import numpy as np
import pytest
from scipy.sparse import csr_array, save_npz

import lazypipe as lp
from lazypipe.io import open_matrix
from lazypipe.io.convert import convert
from lazypipe.io.matrix import Dense
from lazypipe.models.sweep.planning import TORCH_NBYTES
from lazypipe.plan import Host, or_say_what_fits
from lazypipe.sizes import MIB, parse_bytes, show_bytes


class Unread(Dense):
    """A matrix of a given shape that fails the test if anything reads it."""

    def __init__(self, shape, reads_columns=True, panel_columns=None):
        self.uri, self.shape, self.reads_columns = "<unread>", shape, reads_columns
        self.panel_columns = panel_columns

    @property
    def dtype(self):
        return np.dtype("float32")

    def open(self, mapped=False):
        raise AssertionError("a plan must not read")

    def reader_nbytes(self, n_rows, n_columns):
        return 0

    def fingerprint(self):
        return ""


@pytest.mark.parametrize("solver", ["auto", "gradient", "gram", "covariance", "deflation"])
def test_too_little_memory_is_refused_unread_with_what_would_fit(solver):
    matrix = Unread((60_000, 1_000_000))
    with (
        lp.open_engine("serial", memory="16MiB") as engine,
        pytest.raises(lp.MemoryPlanError, match="the budget is 16MiB") as caught,
    ):
        lp.PCA(10, solver=solver).fit(matrix, engine=engine)
    message = str(caught.value)
    assert "\n" not in message
    fits = re.search(r"It fits in memory='([^']+)'", message)[1]
    with lp.open_engine("serial", memory=fits) as engine:
        plan = lp.plan_pca(matrix, lp.PCA(10, solver=solver), engine)
    assert plan.arrays_nbytes <= parse_bytes(fits)


def test_covariance_too_wide_is_refused_unread():
    with (
        lp.open_engine("serial", memory="1GiB") as engine,
        pytest.raises(lp.MemoryPlanError, match="write tiles"),
    ):
        lp.covariance(Unread((10_000, 100_000)), engine=engine)


@pytest.mark.parametrize("memory", ["100MiB", "300MiB", "2GiB"])
def test_arrays_stay_within_the_budget_by_plan(memory):
    with lp.open_engine("dask", memory=memory, workers=16) as engine:
        plan = lp.plan_pca(Unread((2_000, 500_000)), lp.PCA(10), engine)
    assert plan.arrays_nbytes <= parse_bytes(memory)
    assert plan.peak_nbytes == plan.arrays_nbytes + plan.host.base


def test_cuts_do_not_depend_on_engine_or_workers():
    cuts = set()
    for kind, workers in (("serial", None), ("dask", 1), ("dask", 7)):
        with lp.open_engine(kind, memory="256MiB", workers=workers) as engine:
            plan = lp.plan_pca(Unread((2_000, 500_000)), lp.PCA(10), engine)
            cuts.add(tuple(fold.runs for fold in plan.folds))
    assert len(cuts) == 1


def test_one_million_columns_fit_one_gibibyte():
    with lp.open_engine("dask", memory="1GiB") as engine:
        plan = lp.plan_pca(Unread((2_000, 1_000_000)), lp.PCA(10, solver="gradient"), engine)
    assert plan.arrays_nbytes <= 1024 * MIB


def test_a_file_without_column_stripes_is_iterated_on_its_long_side():
    with lp.open_engine("serial") as engine:
        plan = lp.plan_pca(Unread((300, 50_000), reads_columns=False), lp.PCA(5, solver="gradient"), engine)
        assert plan.folds[0].axis == "rows"
        assert "convert it to .npy" in str(plan)
        with pytest.raises(lp.PlanError, match="Convert it to .npy"):
            lp.plan_pca(Unread((300, 50_000), reads_columns=False), lp.PCA(5, solver="gram"), engine)


def test_the_budget_that_would_do_is_found_from_none_at_all():
    def make(host):
        if host.memory < 100 * MIB:
            raise lp.MemoryPlanError("x.npy: needs 100MiB.")

    with pytest.raises(lp.MemoryPlanError, match=r"needs 100MiB\. It fits in memory='1\d\dMiB'; or wait\.$"):
        or_say_what_fits(make, Host(0, 1, shared=True, base=0), "or wait.")


@pytest.mark.parametrize("memory", ["24MiB", "100MiB", "2GiB"])
@pytest.mark.parametrize("width", [16, 1021, 1040, 20_000])
def test_blocks_are_whole_panels_or_even_parts_of_one(width, memory):
    cuts = set()
    for kind, workers in (("serial", None), ("dask", 1), ("dask", 7)):
        with lp.open_engine(kind, memory=memory, workers=workers) as engine:
            plan = lp.plan_pca(Unread((2_000, 200_000), panel_columns=width), lp.PCA(5, solver="gradient"), engine)
        cuts.add(tuple(fold.runs for fold in plan.folds))
    assert len(cuts) == 1
    for fold in plan.folds:
        assert fold.step % width == 0 or width % fold.step == 0
        assert fold.step <= max(width, 1048), "about 8 MiB, unless a panel is larger"
        assert all(run.start % width == 0 or width > fold.step for run in fold.runs)
        assert len(fold.runs) <= 12, "a run is no smaller than over rows"
    assert plan.arrays_nbytes <= parse_bytes(memory)
    split = width == 20_000 and memory != "2GiB"  # 160 MB
    assert ("do not fit the budget" if split else "each is read in one piece") in str(plan)


def test_the_plan_says_how_the_rows_lie(tmp_path):
    np.save(tmp_path / "wide.npy", np.zeros((20, 4_000), np.float32))
    with lp.open_engine("serial") as engine:
        assert "rows are contiguous: stripes are read in pieces of" in str(
            lp.plan_pca(tmp_path / "wide.npy", lp.PCA(2, solver="gram"), engine)
        )
        assert "convert to .zarr panels" not in str(lp.plan_pca(np.zeros((20, 4_000)), lp.PCA(2), engine))


def test_auto_says_why():
    with lp.open_engine("serial") as engine:
        plan = lp.plan_pca(Unread((2_000, 500_000)), lp.PCA(10), engine)
    assert plan.reason.startswith("cheapest") and plan.reason in str(plan)
    for told in ({"gradient", "gram"} - {plan.solver}).pop(), "passes", "covariance would not fit in 2GiB":
        assert told in plan.reason


MEASURE = """
import sys
import numpy as np
import lazypipe as lp
from lazypipe.engines import resident
kind, what, path, memory = sys.argv[1:]
for name in ("PCA", "LinearRegression", "covariance", "convert", "regularization_sweep"):
    getattr(lp, name)  # libraries, loaded where first used
with lp.open_engine(kind, memory=memory, workers=2) as engine:
    before = resident.resident_nbytes()
    engine.reset_peak()
    if what == "covariance":
        plan = lp.covariance(path, engine=engine).plan
    elif what == "state":
        plan = lp.covariance(path, engine=engine, state=path + ".state." + kind).plan
    elif what == "tiles":
        plan = lp.covariance(path, engine=engine, out=path + "." + kind + ".zarr").plan
    elif what == "prepared":
        options = {"scale": True, "nan": "omit", "tol": 1e-3, "max_passes": 6}
        plan = lp.PCA(5, solver="gradient", **options).fit(path, engine=engine).plan_
    elif what.startswith("spikes"):
        spikes = {u: np.arange(300 + u, 299_000, 997 + 7 * u) for u in range(12)}
        options = {"state": path + ".spikes." + kind} if what == "spikes saved" else {}
        plan = lp.spike_triggered_average(path, spikes, (-150, 150), engine=engine, dtype="float32", **options).plan
    elif what in ("logistic", "sgd", "mlp", "ridge"):
        n = lp.open_matrix(path).shape[0]
        few, y = np.load(path, mmap_mode="r")[:50], np.arange(n) % 2
        options = {"sizes": [n // 300, n // 3], "strengths": [1.0, 0.1], "model": what, "max_passes": 6, "epochs": 1}
        plan = lp.regularization_sweep((path, y), (few, y[:50]), engine=engine, **options, hidden=64).plan_
    elif what in ("normal", "tsqr"):
        plan = lp.LinearRegression(method=what).fit(path, 0, engine=engine).plan_
    else:
        plan = lp.PCA(5, solver=what, tol=1e-3, max_passes=6).fit(path, engine=engine).plan_
    print(engine.peak_memory(), plan.peak_nbytes, plan.arrays_nbytes, before)
"""


PEAKS = (
    ("covariance", "tall.npy"),
    ("gradient", "tall.npy"),
    ("gradient", "wide.npy"),
    ("gram", "wide.npy"),
    ("gradient", "wide.zarr"),
    ("state", "tall.npy"),
    ("tiles", "tiles.npy"),
    ("prepared", "wide.npy"),
    ("prepared", "tall.npy"),
    ("gradient", "sparse.npz"),
    ("normal", "tall.npy"),
    ("tsqr", "tall.npy"),
    ("logistic", "tall.npy"),
    ("logistic", "wide.npy"),
    ("sgd", "tall.npy"),
    ("mlp", "tall.npy"),
    ("ridge", "tall.npy"),
    ("ridge", "wide.npy"),
    ("spikes", "tall.npy"),
    ("spikes saved", "tall.npy"),
)
# Spark's workers run the same tasks, and its driver merges the same states; a session takes 14 s to start and end.
MEASURED = [(kind, *peak) for kind in ("serial", "dask") for peak in PEAKS] + [
    ("spark", "gradient", "wide.npy"),
    ("spark", "gradient", "sparse.npz"),
    ("spark", "state", "tall.npy"),
    ("spark", "tiles", "tiles.npy"),
]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    for name, shape in (("wide", (500, 300_000)), ("tall", (300_000, 500)), ("tiles", (700, 9_000))):
        target = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, shape)
        step = max(1, 3_000_000 // shape[1])
        for start in range(0, shape[0], step):
            target[start : start + step] = rng.standard_normal(target[start : start + step].shape, np.float32)
        del target
    convert(folder / "wide.npy", folder / "wide.zarr")
    sparse = csr_array((rng.random(10**7, np.float32), rng.integers(0, 200, 10**7), np.arange(0, 10**7 + 1, 100)))
    sparse.indices += np.tile(np.arange(100, dtype=sparse.indices.dtype) * 200, 10**5)  # sorted: 100,000 x 20,000
    save_npz(folder / "sparse.npz", csr_array(sparse, shape=(10**5, 20_000)), compressed=False)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize(("kind", "what", "name"), MEASURED)
def test_measured_peak_stays_under_the_plan(kind, what, name, large):
    path = large / name  # 600 MB
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE, kind, what, path, "96MiB"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    peak, planned, arrays, before = map(int, done.stdout.split())
    told = f"peak {show_bytes(peak)}, planned {show_bytes(planned)}, {show_bytes(before)} before"
    assert peak <= planned, told
    libraries = TORCH_NBYTES if what == "mlp" else 0
    assert arrays <= 96 * MIB and peak - before - libraries < 200 * MIB, told  # nothing of the size of the data


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("512MiB", 512 * MIB), ("2GiB", 2**31), ("1.5e9", 1_500_000_000), ("4GB", 4 * 10**9), (7, 7),
        (2e9, 2 * 10**9), (np.int64(7), 7), (np.float32(2**31), 2**31), (np.uint8(7), 7),
    ],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text, nbytes):
    assert parse_bytes(text) == nbytes


@pytest.mark.parametrize(
    "text", ["much", "12 apples", "", "-1GiB", -1, -2e9, np.int64(-1), float("nan"), float("inf"), True, None, [1]]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(lp.ConfigError, match="is no size"):
        parse_bytes(text)


def test_an_open_matrix_is_taken_as_it_is():
    matrix = Unread((3, 3))
    assert open_matrix(matrix) is matrix
