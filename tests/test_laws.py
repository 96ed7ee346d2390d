"""The laws that hold for every statistic: any cuts, plain NumPy, the same bits on every engine."""

from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import CASES, Case, centre_of

from lazypipe.blocks import SUPPORTED_DTYPES, Block, Span, compute_dtype
from lazypipe.engines.tasks import merge_group, merge_in_order
from lazypipe.io import open_matrix
from lazypipe.io.prepared import Prepared
from lazypipe.plan import FAN_IN, plan_fold
from lazypipe.sizes import MIB

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def measured(case: Case, x: np.ndarray, spans: list[Span]) -> list:
    statistic = case.make(x)
    states = []
    reads = getattr(statistic, "reads", None)
    if reads is not None:
        for span in spans:
            rows = Span(max(0, span.start - reads.before), span.stop)
            values = x[rows.slice, reads.columns.slice].astype(reads.dtype)
            block = Block(values, span, reads.columns, "<test>", span.start - rows.start)
            states.append(statistic.add(statistic.empty(), block))
        return states
    for span in spans:
        rows, columns = Span(0, len(x)), Span(0, x.shape[1])
        rows, columns = (span, columns) if statistic.axis == "rows" else (rows, span)
        values = x[rows.slice, columns.slice].astype(compute_dtype(x.dtype))  # a copy: measure may overwrite
        if case.centred:
            values -= centre_of(x)[columns.slice]
        states.append(statistic.measure(Block(values, rows, columns, "<test>")))
    return states


def assert_agrees(case: Case, x: np.ndarray, answer, rtol: float) -> None:
    for got, want in zip(case.answer(answer), case.reference(x), strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=0, atol=rtol * np.abs(want).max())


@each_case
@given(data=st.data(), seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_cutting_the_data_anywhere_never_changes_the_answer(case, data, seed):
    x = np.random.default_rng(seed).normal(3, 2, (23, 17))
    length = x.shape[0 if case.make(x).axis == "rows" else 1]
    cuts = data.draw(st.sets(st.integers(1, length - 1)))
    edges = [0, *sorted(cuts), length]
    spans = [Span(a, b) for a, b in pairwise(edges)]
    statistic = case.make(x)
    whole = statistic.finish(measured(case, x, [Span(0, length)])[0])
    in_order = statistic.finish(merge_in_order(statistic, measured(case, x, spans)))
    one_by_one = statistic.finish(reduce(statistic.merge, measured(case, x, spans)))
    assert_agrees(case, x, whole, 1e-12)
    assert_agrees(case, x, in_order, 1e-12)
    assert_agrees(case, x, one_by_one, 1e-12)


@each_case
@pytest.mark.parametrize("dtype", SUPPORTED_DTYPES)
def test_kernels_equal_plain_numpy_in_every_dtype(case, dtype):
    x = np.random.default_rng(3).normal(40, 20, (60, 45)).clip(0, 120).astype(dtype)
    if dtype == "bool":
        x = np.random.default_rng(3).random((60, 45)) < 0.3
    statistic = case.make(x)
    length = x.shape[0 if statistic.axis == "rows" else 1]
    spans = [Span(a, min(a + 7, length)) for a in range(0, length, 7)]
    answer = statistic.finish(merge_in_order(statistic, measured(case, x, spans)))
    assert_agrees(case, x, answer, 1e-12 if compute_dtype(x.dtype) == np.float64 else 2e-6)


@each_case
def test_float32_keeps_its_digits_under_means_of_ten_thousand_deviations(case):
    rng = np.random.default_rng(5)
    x = (rng.normal(size=(400, 30)) + 1e4 * rng.normal(size=30)).astype(np.float32)
    statistic = case.make(x)
    length = x.shape[0 if statistic.axis == "rows" else 1]
    spans = [Span(a, min(a + 13, length)) for a in range(0, length, 13)]
    answer = statistic.finish(merge_in_order(statistic, measured(case, x, spans)))
    assert_agrees(case, x, answer, 3e-6)


@each_case
def test_merging_leaves_what_it_merged_as_it_was(case):
    x = np.random.default_rng(1).normal(size=(20, 12))
    statistic = case.make(x)
    states = measured(case, x, [Span(0, 4), Span(4, 8), Span(8, 12)])
    first = merge_group(statistic, states)
    again = merge_group(statistic, states)  # as a cluster does when it runs a task twice
    np.testing.assert_array_equal(*(case.answer(statistic.finish(total))[0] for total in (first, again)))


@given(n=st.integers(1, 300))
def test_streaming_merges_build_the_same_tree_as_merging_level_by_level(n):
    class Shape:
        def merge(self, left, right):
            return f"({left} {right})"

    level = [str(i) for i in range(n)]
    while len(level) > 1:
        level = [merge_group(Shape(), level[i : i + FAN_IN]) for i in range(0, len(level), FAN_IN)]
    assert merge_in_order(Shape(), (str(i) for i in range(n))) == level[0]


@pytest.fixture(scope="module")
def wide_and_tall(tmp_path_factory):
    folder = tmp_path_factory.mktemp("laws")
    rng = np.random.default_rng(11)
    arrays = {}
    for name, shape in (("rows", (9_000, 150)), ("columns", (150, 9_000))):
        x = rng.normal(5, 3, shape).astype(np.float32)
        np.save(folder / f"{name}.npy", x)
        arrays[name] = x, open_matrix(folder / f"{name}.npy")
    return arrays


@each_case
@pytest.mark.parametrize("memory", [16 * MIB, 512 * MIB], ids=["16MiB", "512MiB"])
def test_engines_agree_bit_for_bit(case, memory, wide_and_tall, serial_engine, cluster_engine):
    x, matrix = wide_and_tall[case.make(np.zeros((2, 2))).axis]
    statistic = case.make(x)
    if case.centred:
        matrix = Prepared(matrix, centre=centre_of(x))
    plans = [
        plan_fold("pass", statistic, matrix, type(engine.host)(memory, *list(vars(engine.host).values())[1:]))
        for engine in (serial_engine, cluster_engine)
    ]
    assert plans[0].runs == plans[1].runs, "the cuts must not depend on the engine"
    assert len(plans[0].runs) > FAN_IN
    want = case.answer(serial_engine.fold(statistic, matrix, plans[0]))
    got = case.answer(cluster_engine.fold(statistic, matrix, plans[1]))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
    assert_agrees(case, x, serial_engine.fold(statistic, matrix, plans[0]), 2e-6)


def test_map_gives_results_in_order(wide_and_tall, serial_engine, cluster_engine):
    x, matrix = wide_and_tall["rows"]
    plan = plan_fold("pass", CASES[0].make(x), matrix, cluster_engine.host)
    assert list(cluster_engine.map(abs, range(-20, 0), plan)) == list(serial_engine.map(abs, range(-20, 0), plan))
