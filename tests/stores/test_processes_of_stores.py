"""A matrix in a store, read by many threads, after a fork and in a process that is measured."""

import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lazypipe.blocks import Span
from lazypipe.io import open_matrix

MEASURED = """
import json, sys
import lazypipe as lp
from lazypipe.models.pca import plan_pca
with lp.open_engine(sys.argv[2], memory="64MiB", workers=2) as engine:
    matrix = lp.open_matrix(sys.argv[1])
    pca = lp.PCA(3, solver=sys.argv[3])
    plan = plan_pca(matrix, pca, engine)
    engine.reset_peak()
    pca.fit(matrix, engine=engine)
    print(json.dumps({"peak": engine.peak_memory(), "plan": plan.peak_nbytes}))
"""


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(2000, 500)).astype(np.float32)


@pytest.fixture
def matrix(s3, values, tmp_path):
    np.save(tmp_path / "m.npy", values)
    return open_matrix(s3.put(tmp_path / "m.npy"))


def total(matrix, start: int) -> float:
    out = np.empty((100, 500), np.float32)
    with matrix.open() as reader:
        reader.read(Span(start, start + 100), Span(0, 500), out)
    return float(out.sum(dtype=float))


def in_child(matrix, start: int, queue) -> None:
    queue.put(total(matrix, start))


def test_threads_read_at_once(matrix, values):
    starts = range(0, 2000, 100)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda start: total(matrix, start), starts))
    np.testing.assert_allclose(found, [values[start : start + 100].sum(dtype=float) for start in starts])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_read_with_connections_of_their_own(method, matrix, values):
    total(matrix, 0)  # this process has a connection and a loop, which a fork must not use
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    children = [context.Process(target=in_child, args=(matrix, 300, queue)) for _ in range(2)]
    for child in children:
        child.start()
    try:
        for _ in children:
            np.testing.assert_allclose(queue.get(timeout=60), values[300:400].sum(dtype=float))
    finally:
        for child in children:
            child.join(20)
            if child.is_alive():
                child.kill()
    assert total(matrix, 0) == pytest.approx(values[:100].sum(dtype=float))


@pytest.mark.parametrize(("engine", "solver"), [("serial", "covariance"), ("dask", "covariance")])
def test_memory_stays_under_the_plan(engine, solver, s3, tmp_path):
    random = np.random.default_rng(0)
    np.save(tmp_path / "m.npy", random.normal(size=(20_000, 300)).astype(np.float32))  # 24 MB
    address = s3.put(tmp_path / "m.npy")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, address, engine, solver], env=dict(os.environ), capture_output=True, text=True,
        check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Unclosed" not in done.stderr and "Traceback" not in done.stderr
    measured = json.loads(done.stdout)
    assert measured["peak"] <= measured["plan"], measured
