"""The model of time past one machine: what it counts, where it says that more workers stop to help."""

import math
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.sparse import csr_array, save_npz

import lazypipe as lp
from lazypipe.io.on_paper import matrix_on_paper
from lazypipe.models.pca import choice
from lazypipe.models.preparation import preparation
from lazypipe.models.spike_triggered import planning
from lazypipe.models.spike_triggered.average import plan_question
from lazypipe.models.spike_triggered.on_paper import question_on_paper
from lazypipe.operations import Operations
from lazypipe.plan import Host, plan_fold
from lazypipe.progress import Progress, StageStarted
from lazypipe.scaling import Machine, OnPaper, Seconds, predict, where_it_stops
from lazypipe.scaling.prediction import depth_of
from lazypipe.scaling.words import show_seconds
from lazypipe.sizes import GIB, MIB
from lazypipe.stats import Moments

FREE = Machine(*[math.inf] * 2, 0, 0, *[math.inf] * 7, 0)  # all that it is asked costs nothing


def engine(workers=1, memory=GIB):
    return OnPaper(workers, memory, base=400 * MIB)


def covariance_plan(shape=(1_000_000, 1_000), memory=GIB):
    return lp.plan_covariance(matrix_on_paper(shape, "float32"), engine=engine(1, memory))


def pca_plan(shape, memory, layout="panels", **options):
    return lp.plan_pca(matrix_on_paper(shape, "float32", layout, memory), lp.PCA(10, **options), engine(1, memory))


def seconds(plan, workers, **rates):
    return predict(plan, replace(FREE, **rates), workers).seconds


def test_a_covariance_counts_half_a_product_and_a_state_a_block():
    fold = covariance_plan().folds[0]
    n_blocks = sum(len(list(run.spans())) for run in fold.runs)
    state = 8 * 1_000 * 1_001
    assert fold.work.operations == Operations(float32=1e6 * 1e3**2, memory=n_blocks * state + 2 * 4e9)
    assert fold.work.read_nbytes == 4e9 and fold.work.pieces == n_blocks
    assert seconds(covariance_plan(), 1, float32=10).total == pytest.approx(1e12 / 10e9)


def test_a_pca_counts_its_passes_the_driver_and_what_comes_back():
    plan = pca_plan((2_000, 500_000), GIB, solver="gradient")
    product, components = plan.folds
    assert product.work.times == 12 and components.work.times == 1
    assert product.work.operations.thin == pytest.approx(4 * 2_000 * 500_000 * 16)
    assert product.work.sent_nbytes == 4 * 2_000 * 16
    assert components.work.returned_nbytes == 500_000 * (10 * 4 + 8)
    read = predict(plan, FREE, 1).read_nbytes
    assert read == plan.passes * 4 * 2_000 * 500_000
    assert 1 < seconds(plan, 1, float64=1).driver < 2, "Rayleigh-Ritz in 16 to 192 vectors, 12 times"


def test_bytes_read_are_those_that_jobs_read(tmp_path):
    """The plan on paper of a matrix, and what a run of it says that it reads, stage by stage."""
    lp.generate(tmp_path / "wide.npy", 60, 5_000, spectrum="1/i", rank=20, noise=0.01)
    read = []

    def listen(event):
        if isinstance(event, StageStarted):
            read.append(event.n_bytes)

    with lp.open_engine("serial", memory="64MiB", progress=Progress([listen])) as serial:
        pca = lp.PCA(3, solver="gradient", tol=1e-3, max_passes=20).fit(tmp_path / "wide.npy", engine=serial)
    plan = lp.plan_pca(matrix_on_paper((60, 5_000), "float32"), lp.PCA(3, solver="gradient"), engine(1, 64 * MIB))
    product, components = plan.folds
    made = replace(plan, folds=(product.doing(times=pca.n_passes_ - 1), components))
    assert predict(made, replace(FREE, page=0), 1).read_nbytes == sum(read)


def test_stripes_of_a_file_of_rows_cost_pages_and_calls():
    rows, panels = (pca_plan((1_000_000, 10_000_000), 16 * GIB, layout).folds[0] for layout in ("rows", "panels"))
    n_blocks = sum(len(list(run.spans())) for run in rows.runs)
    assert rows.work.pieces == 1_000_000 * n_blocks, "64 bytes of every row, again and again"
    assert panels.work.pieces == 10_000_000 / 16
    plan = pca_plan((1_000_000, 10_000_000), 16 * GIB, "rows")
    once = replace(plan, folds=(rows.doing(times=1),))
    assert predict(once, Machine(), 1).read_nbytes == rows.work.pieces * 4096
    assert seconds(once, 1, piece=1).reading == pytest.approx(rows.work.pieces * 1e-6)


def test_twice_the_workers_take_half_the_time_as_long_as_all_have_tasks():
    plan = covariance_plan((4_000_000, 1_000), 4 * GIB)
    n_runs = len(plan.folds[0].runs)
    assert n_runs > 64
    one = seconds(plan, 1, storage=1, float32=50, memory=math.inf)
    for workers in (2, 3, 7, n_runs, 10 * n_runs):
        rounds = math.ceil(n_runs / workers)
        assert seconds(plan, workers, storage=1, float32=50).total == pytest.approx(one.total * rounds / n_runs)


def test_storage_that_is_shared_gives_no_more_to_more_workers():
    plan = covariance_plan()
    assert seconds(plan, 100, storage=1, shared_storage=2).reading == pytest.approx(2.0)
    assert predict(plan, replace(FREE, storage=1, shared_storage=2), 100).limit == "shared storage"
    assert predict(plan, replace(FREE, storage=1), 2).limit == "reading"


@pytest.mark.parametrize(("n", "depth"), [(1, 0), (2, 1), (4, 1), (5, 2), (16, 2), (17, 3), (4096, 6)])
def test_the_depth_of_the_tree(n, depth):
    assert depth_of(n) == depth


def test_states_merge_in_a_tree_and_go_between_workers():
    plan = covariance_plan()
    fold, n_runs = plan.folds[0], len(plan.folds[0].runs)
    found = predict(plan, replace(FREE, network=1), 4)
    assert found.reduced_nbytes == pytest.approx((n_runs - 1) * fold.state_nbytes * 3 / 4)
    depth = depth_of(n_runs)
    least = 3 * depth * fold.state_nbytes * 3 / 4 / 1e9
    most = (n_runs - 1) * fold.state_nbytes / 1e9
    assert least < found.seconds.reducing < most
    assert found.seconds.driver == pytest.approx(2 * fold.state_nbytes / 1e9), "through the scheduler"
    assert predict(plan, replace(FREE, network=1), 1).reduced_nbytes == 0, "all states are its own"


def test_what_is_sent_reaches_three_times_as_many_each_time():
    plan = pca_plan((200_000, 1_000_000), 8 * GIB, solver="gradient")
    product = plan.folds[0]
    once = replace(plan, folds=(product.doing(times=1),))
    sent = product.work.sent_nbytes / 1e9
    for workers, generations in ((1, 0), (3, 1), (9, 2), (10, 3)):
        found = predict(once, replace(FREE, network=1), workers)
        assert found.seconds.broadcasting == pytest.approx(sent * (2 + 2 * generations))
        assert found.sent_nbytes == workers * product.work.sent_nbytes


def test_in_one_process_nothing_is_sent_and_no_more_run_than_fit():
    matrix = matrix_on_paper((1_000_000, 1_000), "float32")
    host = Host(256 * MIB, threads=4, shared=True, base=0)
    fold = plan_fold("moments", Moments(), matrix, host)
    plan = replace(covariance_plan(), folds=(fold,))
    found = predict(plan, replace(FREE, network=1e-9, memory=1), 4)
    assert found.sent_nbytes == found.reduced_nbytes == found.returned_nbytes == 0
    assert found.seconds.broadcasting == found.seconds.driver == 0
    alone = replace(plan, folds=(replace(fold, concurrency=1),))
    assert seconds(alone, 4, memory=1).total == seconds(alone, 1, memory=1).total


def test_tasks_wait_for_the_scheduler_where_they_are_short():
    plan = covariance_plan()
    n_runs = len(plan.folds[0].runs)
    n_tasks = n_runs + math.ceil((n_runs - 1) / 3)
    assert seconds(plan, 2, task=1).scheduling == pytest.approx(n_tasks / 1000)
    assert seconds(plan, 2, task=1, storage=0.001).scheduling == 0, "reading takes longer"


def test_units_that_do_not_fit_a_few_times_are_cut_into_tasks_that_each_read_all():
    paper = engine(10, 64 * MIB)
    question = question_on_paper(600 * 30_000, 64, "float32", 30_000, (-100, 100), 100, 6_000)
    plan = plan_question(question, paper)
    assert paper.asked, "the cut depends on the number of workers"
    fold = plan.folds[0]
    assert fold.runs[0].start == fold.runs[-1].start == 0
    assert fold.work.read_nbytes >= len(fold.runs) * question.recording.matrix.nbytes
    assert fold.work.returned_nbytes == pytest.approx(2 * 8 * 100 * 200 * 64, rel=0.2)
    covariance = engine()
    lp.plan_covariance(matrix_on_paper((1_000, 10), "float32"), engine=covariance)
    assert not covariance.asked


def test_sums_of_integers_are_cut_in_time_by_tiles_where_that_reads_less():
    n_samples = 600 * 30_000
    question = question_on_paper(n_samples, 64, "int16", 30_000, (-100, 100), 100, 6_000)
    few, many = (plan_question(question, engine(workers, 64 * MIB)) for workers in (2, 64))
    (apart,), (together,) = few.folds, many.folds
    assert apart.work.times == 1 and apart.runs[0].start == apart.runs[-1].start == 0
    assert together.work.times == many.passes > 1 and together.runs[-1].stop == n_samples
    assert together.runs[0].start < together.runs[-1].start
    read = predict(many, FREE, 64).read_nbytes
    assert read == pytest.approx(many.passes * question.recording.matrix.nbytes, rel=0.1)
    assert together.work.operations.additions * many.passes == pytest.approx(2 * 100 * 6_000 * 200 * 64, rel=0.1)


def test_a_doubling_that_gains_nothing_is_no_end_where_more_doublings_gain():
    def predicted(workers):  # half the time from four workers on, and none after
        return replace(once, workers=workers, passes=(replace(only, seconds=Seconds(reading=slow(workers))),))

    once = predict(covariance_plan(), FREE, 1)
    (only,) = once.passes
    slow = {1: 8.0, 2: 7.9, 4: 2.0}.get
    stop = where_it_stops(lambda workers: predicted(workers) if workers <= 4 else predicted(4))
    assert stop.workers == 4 and stop.gain == 1


def test_a_recording_in_epochs_is_folded_as_often():
    question = question_on_paper(600 * 30_000, 64, "int16", 30_000, (-100, 100), 20, 600)
    plan = plan_question(question, engine(4, 64 * MIB))
    fold = plan.folds[0]
    assert fold.work.times == 600 * 30_000 / fold.runs[-1].stop > 2
    read = predict(plan, FREE, 4).read_nbytes
    assert read == pytest.approx(question.recording.matrix.nbytes, rel=0.1), "each epoch, and halos"
    added = fold.work.operations.additions * fold.work.times
    assert added == pytest.approx(2 * 20 * 600 * 200 * 64, rel=0.1)


def test_windows_on_paper_are_planned_as_those_of_spikes():
    n, trains = 60_000, {u: np.linspace(100, 59_000, 500).astype(int) for u in range(6)}
    recording = lp.open_recording(np.zeros((n, 32), np.int16), sampling_rate=1_000)
    real = lp.plan_spike_triggered_average(recording, trains, (-20, 21), engine=engine(2, 64 * MIB))
    paper = plan_question(question_on_paper(n, 32, "int16", 1_000, (-20, 21), 6, 500), engine(2, 64 * MIB))
    for name in ("runs", "state_nbytes", "reserved", "concurrency", "live_states"):
        assert getattr(paper.folds[0], name) == getattr(real.folds[0], name), name
    assert paper.folds[0].work == real.folds[0].work


def test_what_no_tile_of_a_recording_fits_is_refused_at_once(monkeypatch):
    """Not after five million tiles were tried."""
    monkeypatch.setattr(planning, "_tiles", None)
    question = question_on_paper(1_000_000, 5_000, "int16", 30_000, (-30, 60), 1_000, 100_000)
    with pytest.raises(lp.MemoryPlanError, match="needs .* the budget is 1GiB"):
        planning.plan_in_tiles(
            "average", lp_statistic(question), question.recording.matrix, engine().host, 10, reserved=4 * GIB
        )


def lp_statistic(question):
    from lazypipe.models.spike_triggered.average import _statistic

    return _statistic(question, True, 1, "float64")


def test_tiles_of_many_rows_read_both_stripes_for_each(tmp_path):
    matrix = matrix_on_paper((400_000, 8_000), "float32")
    few = lp.plan_covariance(matrix_on_paper((400, 8_000), "float32"), engine=engine(), out=tmp_path / "a.zarr")
    many = lp.plan_covariance(matrix, engine=engine(), out=tmp_path / "b.zarr")
    tile = many.folds[0].step
    count = math.ceil(8_000 / tile)
    assert many.folds[0].bytes_read == count * (count + 1) * tile * matrix.nbytes / 8_000
    tile, tasks = few.folds[0].step, few.folds[0].runs
    count = math.ceil(8_000 / tile)
    assert few.folds[0].bytes_read == (count * (count + 1) / 2 + len(tasks)) * tile * 4 * 400
    work = few.folds[0].work
    assert work.written_nbytes == few.output_nbytes and work.returned_nbytes == 0
    assert seconds(few, 1, storage=1).writing == pytest.approx(few.output_nbytes / 1e9)


def test_a_pca_remembers_fewer_directions_rather_than_be_refused():
    blocks = {}
    for memory in (8 * GIB, 16 * GIB):
        matrix = matrix_on_paper((1_000_000, 10_000_000), "float32")
        asked = preparation(matrix, True, False, "raise", None)
        blocks[memory] = choice.choose(matrix, 10, "auto", asked, engine(1, memory).host).max_blocks
    assert choice.MIN_BLOCKS <= blocks[8 * GIB] < blocks[16 * GIB] == choice.MAX_BLOCKS


@pytest.mark.parametrize("solver", ["gradient", "gram", "covariance", "deflation"])
def test_auto_weighs_solvers_by_this_model(solver):
    matrix = matrix_on_paper((3_000, 2_000), "float32")
    asked = preparation(matrix, True, False, "raise", None)
    found = choice.choose(matrix, 5, solver, asked, engine().host)
    assert found.seconds == predict(found.plan, choice.NOMINAL, 1).seconds.total
    told = f"{found.seconds:.2g} s"
    assert solver == "gradient" or found.seconds > 0, told
    if solver == "covariance":
        products, values = 3_000 * 2_000**2 / 150e9, 4 * 2_000**3 / 30e9
        assert found.seconds == pytest.approx(matrix.nbytes / 5e9 + products + values)


STOPS = {
    "tasks": ({"storage": 1}, "has [0-9]+ tasks for [0-9]+ workers"),
    "shared storage": ({"storage": 1, "shared_storage": 3}, "the storage that all workers share"),
    "reducing": ({"storage": 10, "network": 0.01}, "states of 7.6MiB merge 3 levels deep"),
    "scheduling": ({"storage": 10, "task": 10}, "the scheduler takes .* to hand out the [0-9]+ tasks"),
}


@pytest.mark.parametrize("case", STOPS)
def test_where_it_stops_is_told_with_the_reason(case):
    rates, said = STOPS[case]
    plan = covariance_plan()
    stop = where_it_stops(lambda n: predict(plan, replace(FREE, **rates), n))
    assert stop.gain < 1.3
    assert re.search(said, stop.reason), stop.reason
    before, after = (seconds(plan, n, **rates).total for n in (stop.workers, 2 * stop.workers))
    assert before / after == pytest.approx(stop.gain)


def test_the_driver_alone_and_what_is_sent_are_reasons_too():
    plan = pca_plan((20_000, 100_000), 2 * GIB, solver="gradient")
    stop = where_it_stops(lambda n: predict(plan, replace(FREE, storage=1, float64=1), n))
    assert "the driver takes" in stop.reason
    stop = where_it_stops(lambda n: predict(plan, replace(FREE, storage=1, network=0.001), n))
    assert "are sent to every worker" in stop.reason or "merge" in stop.reason


def test_each_task_that_reads_all_is_told_as_the_reason():
    question = question_on_paper(600 * 30_000, 64, "int16", 30_000, (-100, 100), 100, 6_000)
    stop = where_it_stops(lambda n: predict(plan_question(question, engine(n, 64 * MIB)), replace(FREE, storage=1), n))
    assert "reads all of the data" in stop.reason


def test_what_nothing_counts_has_no_prediction(tmp_path):
    save_npz(tmp_path / "sparse.npz", csr_array(np.eye(50, 8, dtype=np.float32)))
    plan = lp.plan_covariance(tmp_path / "sparse.npz", engine=engine())
    with pytest.raises(lp.PlanError, match="no model of the time of 'covariance'"):
        predict(plan, Machine(), 10)


def test_an_engine_on_paper_does_no_work(tmp_path):
    np.save(tmp_path / "rows.npy", np.ones((20, 3)))
    with pytest.raises(NotImplementedError, match="on paper"):
        lp.covariance(tmp_path / "rows.npy", engine=engine())


def test_parts_add_up():
    found = predict(pca_plan((20_000, 100_000), 2 * GIB), Machine(), 10).seconds
    assert found.total == pytest.approx(sum(asdict(found).values()))
    assert getattr(found, found.largest) == max(asdict(found).values())
    assert Seconds(1.0).plus(Seconds(2.0, 3.0), 2).total == 11


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "0"), (0.0123, "12 ms"), (0.25, "0.2 s"), (3.14, "3.1 s"), (90, "90 s"), (600, "10 min"), (7200, "2 h"),
     (200_000, "2.3 d"), (4e8, "13 years"), (1e10, "317 years")],
)  # fmt: skip
def test_durations(value, told):
    assert show_seconds(value) == told
