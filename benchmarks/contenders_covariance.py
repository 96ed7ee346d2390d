"""Covariance of a tall matrix: lazypipe, and what people would use instead."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import cores
from contenders import Answer, Job, contender, settings

ROWS = (2_000, 5_000, 20_000, 50_000)


@contender("tall", "lazypipe on Dask, in process", ours=True)
def lazypipe_dask(job: Job) -> Callable[[], Answer]:
    return _lazypipe(job, "dask")


@contender("tall", "lazypipe on Spark, local", ours=True, spark=True)
def lazypipe_spark(job: Job) -> Callable[[], Answer]:
    return _lazypipe(job, "spark")


def _lazypipe(job: Job, kind: str) -> Callable[[], Answer]:
    import lazypipe as lp

    engine = job.stack.enter_context(lp.open_engine(kind, memory=job.memory))
    return lambda: Answer(lp.covariance(job.path, engine=engine).covariance, f"float32, budget {job.memory}")


@contender("tall", "NumPy in chunks, by hand", part=settings(rows=ROWS))
def numpy_by_hand(job: Job) -> Callable[..., Answer]:
    """What a careful person writes: one pass about a provisional mean, into the same memory throughout."""

    def run(rows: int) -> Answer:
        x = job.x
        n, d = x.shape
        shift = x[:1_000].mean(axis=0)
        total, sums = np.zeros((d, d)), np.zeros(d)
        product, buffer, ones = np.empty((d, d), np.float32), np.empty((rows, d), np.float32), np.ones(rows, np.float32)
        for i in range(0, n, rows):
            size = min(rows, n - i)
            block = np.subtract(x[i : i + rows], shift, out=buffer[:size])
            total += np.matmul(block.T, block, out=product)
            sums += ones[:size] @ block
        total -= np.outer(sums, sums / n)
        return Answer(total / (n - 1), f"float32, {rows:,} rows at once, BLAS on all cores")

    return run


@contender("tall", "NumPy cov", part=settings(mapped=(True, False)))
def numpy_cov(job: Job) -> Callable[..., Answer]:
    def run(mapped: bool) -> Answer:
        x = job.x if mapped else np.array(job.x)
        return Answer(np.cov(x, rowvar=False, dtype=np.float32), f"float32, {'mapped' if mapped else 'in memory'}")

    return run


@contender("tall", "dask.array.cov", part=settings(rows=(5_000, 20_000, 50_000), threads=(1, cores())))
def dask_cov(job: Job) -> Callable[..., Answer]:
    import dask.array as da

    def run(rows: int, threads: int) -> Answer:
        value = compute(da.cov(from_file(job.x, (rows, -1)), rowvar=False), threads)
        return Answer(value, f"float64 (it knows no other), chunks of {rows:,} rows, {said(threads)}")

    return run


@contender("tall", "dask.array, by hand", part=settings(rows=(5_000, 20_000, 50_000), threads=(1, cores())))
def dask_by_hand(job: Job) -> Callable[..., Answer]:
    """The same in float32, as Dask's users write it."""

    def run(rows: int, threads: int) -> Answer:
        x = from_file(job.x, (rows, -1))
        x = x - x.mean(axis=0, dtype=np.float64).astype(np.float32)
        value = compute(x.T @ x, threads) / (len(x) - 1)
        return Answer(value, f"float32 XᵀX, chunks of {rows:,} rows, {said(threads)}")

    return run


@contender("tall", "scikit-learn PCA, covariance_eigh", part=settings(mapped=(True, False)))
def sklearn_covariance(job: Job) -> Callable[..., Answer]:
    from sklearn.decomposition import PCA

    def run(mapped: bool) -> Answer:
        pca = PCA(svd_solver="covariance_eigh").fit(job.x if mapped else np.array(job.x))
        components = pca.components_.astype(np.float64)
        value = (components.T * pca.explained_variance_) @ components
        return Answer(
            value, f"float32, {'mapped' if mapped else 'in memory'}; rows not centred; takes the eigenvectors too"
        )

    return run


@contender("tall", "Spark MLlib computeCovariance", spark=True)
def mllib_covariance(job: Job) -> Callable[[], Answer]:
    n = min(job.spark_rows, job.x.shape[0])
    matrix, said = row_matrix(job, job.x[:n])

    def run() -> Answer:
        value = matrix.computeCovariance().toArray()
        return Answer(value, f"float64, rows cached in the JVM, {said}", slice_of=(slice(n), slice(None)))

    return run


def row_matrix(job: Job, x: np.ndarray) -> tuple:
    """An MLlib RowMatrix of rows that are cached in the JVM, and the name of the JVM's BLAS.

    Through Parquet: the rows never pass through Python, which would take minutes for what takes seconds.
    """
    import psutil
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark.ml.functions import array_to_vector
    from pyspark.mllib.linalg.distributed import RowMatrix
    from pyspark.mllib.util import MLUtils
    from pyspark.sql import SparkSession

    folder = Path(job.path).parent
    heap = psutil.virtual_memory().available // 2**20 * 2 // 3
    spark = (
        SparkSession.builder.master(f"local[{cores()}]")
        .config("spark.driver.memory", f"{heap}m")
        .config("spark.driver.maxResultSize", "0")
        .config("spark.local.dir", str(folder))
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    job.stack.callback(spark.stop)
    parts = folder / "rows.parquet"
    parts.mkdir(exist_ok=True)
    size = -(-len(x) // (4 * cores()))  # a few partitions a core
    for i in range(0, len(x), size):
        block = x[i : i + size].astype(np.float64)
        rows = pa.FixedSizeListArray.from_arrays(block.ravel(), x.shape[1]).cast(pa.list_(pa.float64()))
        pq.write_table(pa.table({"row": rows}), parts / f"{i}.parquet", use_dictionary=False, compression="none")
    frame = spark.read.parquet(str(parts)).select(array_to_vector("row").alias("row"))
    matrix = RowMatrix(MLUtils.convertVectorColumnsFromML(frame, "row"), *x.shape)
    rows = matrix._java_matrix_wrapper._java_model.rows().cache()
    assert rows.count() == len(x)
    blas = spark._jvm.dev.ludovic.netlib.blas
    try:
        name = blas.NativeBLAS.getInstance().getClass().getSimpleName()
    except Exception:  # no libblas on this machine
        name = blas.JavaBLAS.getInstance().getClass().getSimpleName()
    return matrix, f"{name}, {rows.getNumPartitions()} partitions"


def from_file(x: np.ndarray, chunks: tuple[int, int]):
    import dask.array as da

    return da.from_array(x, chunks=chunks, name=False)  # a name made from the content would read it all


def compute(value, threads: int):
    """On Dask's threads, one a core, and BLAS on ``threads`` in each."""
    import dask
    from threadpoolctl import threadpool_limits

    with threadpool_limits(threads), dask.config.set(scheduler="threads", num_workers=cores()):
        return dask.compute(value)[0]


def said(threads: int) -> str:
    return f"{cores()} threads, BLAS on {threads} in each"
