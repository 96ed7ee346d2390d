"""Components of a wide matrix: lazypipe, and what people would use instead."""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from common import cores, subspace_angle, warm
from contenders import Answer, Job, contender, settings
from contenders_covariance import compute, from_file, row_matrix, said

WIDTHS = (5_000, 20_000, 50_000)
TO_1E6 = settings(tol=(1e-6, 3e-7, 1e-7, 3e-8))
BLAS = settings(threads=(1, cores()))  # small factorisations may be slower on more
GUARDS = 6  # vectors beyond those asked for


@contender("wide", "lazypipe auto", ours=True)
def lazypipe_auto(job: Job) -> Callable[[], Answer]:
    return _lazypipe(job, "auto", "2GiB")


@contender("wide", "lazypipe auto, small budget", ours=True)
def lazypipe_auto_bounded(job: Job) -> Callable[[], Answer]:
    return _lazypipe(job, "auto", job.memory)


@contender("wide", "lazypipe gradient for 1e-3", ours=True, goal=1e-3, whole=settings(tol=(1e-3, 3e-4, 1e-4, 3e-5)))
def lazypipe_gradient_1e3(job: Job) -> Callable[..., Answer]:
    return _lazypipe(job, "gradient", _room(job))


@contender("wide", "lazypipe gradient for 1e-6", ours=True, goal=1e-6, whole=TO_1E6)
def lazypipe_gradient_1e6(job: Job) -> Callable[..., Answer]:
    return _lazypipe(job, "gradient", _room(job))


@contender(
    "wide",
    "lazypipe gradient for 1e-6, small budget",
    ours=True,
    goal=1e-6,
    whole=settings(tol=(1e-6, 3e-7, 1e-7, 3e-8)),
)
def lazypipe_gradient_bounded(job: Job) -> Callable[..., Answer]:
    return _lazypipe(job, "gradient", job.memory)


@contender(
    "wide", "lazypipe on panels for 1e-3, small budget", ours=True, goal=1e-3,
    whole=settings(tol=(1e-3, 3e-4, 1e-4, 3e-5)),
)  # fmt: skip
def lazypipe_panels_1e3(job: Job) -> Callable[..., Answer]:
    return _lazypipe(job, "gradient", job.memory, _panels(job))


@contender("wide", "lazypipe on panels for 1e-6, small budget", ours=True, goal=1e-6, whole=TO_1E6)
def lazypipe_panels_1e6(job: Job) -> Callable[..., Answer]:
    return _lazypipe(job, "gradient", job.memory, _panels(job))


def _panels(job: Job) -> Path:
    """The same matrix in panels, warm as the file is; made once, and not timed."""
    path = job.path.with_suffix(".zarr")
    for file in path.rglob("*"):
        if file.is_file():
            warm(file)
    return path


def _room(job: Job) -> str:
    """A budget under which lazypipe maps the file, as its peers do."""
    return f"{2 * job.path.stat().st_size // 2**30 + 1}GiB"


def _lazypipe(job: Job, solver: str, memory: str, path: Path | None = None) -> Callable[..., Answer]:
    import lazypipe as lp

    warnings.simplefilter("ignore", lp.ConvergenceWarning)
    engine = job.stack.enter_context(lp.open_engine("dask", memory=memory))

    def run(tol: float = 1e-6) -> Answer:
        pca = lp.PCA(job.n_components, solver=solver, tol=tol, max_passes=30).fit(path or job.path, engine=engine)
        setting = f"{pca.solver_}" + (f", tol {tol:.0e}" if pca.solver_ == "gradient" else "")
        return Answer(pca.components_, f"float32, {setting}, budget {memory}", pca.n_passes_)

    return run


@contender("wide", "scipy lobpcg on XXᵀ, by hand for 1e-6", goal=1e-6, whole=settings(tighter=(1.0, 0.3, 0.1)),
           part=settings(width=(1_000, 4_000, 16_000), copied=(True, False)))  # fmt: skip
def scipy_lobpcg(job: Job) -> Callable[..., Answer]:
    """What an expert writes: the Gram matrix as an operator on the short side, never formed.

    How many vectors and which tolerance take the fewest passes to the angle is found beforehand on the Gram
    matrix in memory, where a pass costs nothing.
    """
    import scipy.linalg  # noqa: F401  (imported before the clock runs)
    from threadpoolctl import threadpool_limits

    job.stack.enter_context(threadpool_limits(1))
    pool = job.stack.enter_context(ThreadPoolExecutor(cores()))
    n_vectors, tol, _ = _fewest_passes(job)

    def run(width: int, copied: bool, tighter: float = 1.0) -> Answer:
        x = job.x
        n, d = x.shape

        def block(j: int) -> np.ndarray:
            return np.ascontiguousarray(x[:, j : j + width]) if copied else x[:, j : j + width]

        def twice(j: int, vectors: np.ndarray) -> np.ndarray:
            part = block(j)
            return part @ (part.T @ vectors)

        def centred(vectors: np.ndarray) -> np.ndarray:
            return vectors - vectors.mean(axis=0)

        def matmat(vectors: np.ndarray) -> np.ndarray:
            single = centred(vectors).astype(np.float32)  # which centres the rows of X, without touching them
            total = np.zeros(vectors.shape)
            for part in pool.map(lambda j: twice(j, single), range(0, d, width)):
                total += part
            return centred(total) / (n - 1)

        found, passes = _lobpcg(matmat, n, job.n_components, n_vectors, tol * tighter)
        single = centred(found).astype(np.float32)
        components = np.empty((job.n_components, d), np.float32)

        def project(j: int) -> None:
            components[:, j : j + width] = (block(j).T @ single).T

        list(pool.map(project, range(0, d, width)))
        components /= np.linalg.norm(components, axis=1)[:, None]
        how = f"float32, blocks of {width:,} columns{', copied' if copied else ''}, {cores()} threads"
        return Answer(components, f"{how}, {n_vectors} vectors, tol {tol * tighter:.0e}", passes + 1)

    return run


def _lobpcg(matmat: Callable, n: int, n_components: int, n_vectors: int, tol: float) -> tuple[np.ndarray, int]:
    """The leading vectors (n, n_components) and the products taken."""
    from scipy.sparse.linalg import LinearOperator, lobpcg

    passes = 0

    def counted(vectors: np.ndarray) -> np.ndarray:
        nonlocal passes
        passes += 1
        return matmat(vectors)

    operator = LinearOperator((n, n), matvec=counted, matmat=counted, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal((n, n_vectors))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of each vector that float32 keeps above tol
        values, vectors = lobpcg(operator, start - start.mean(axis=0), tol=tol, maxiter=100, largest=True)
    return vectors[:, np.argsort(values)[::-1][:n_components]], passes


def _fewest_passes(job: Job) -> tuple[int, float, int]:
    """(vectors, tolerance, passes) to an angle of 1e-6, a little less for the rounding of float32."""
    gram = np.load(job.reference("gram"))
    values, basis = np.linalg.eigh(gram)
    root = np.sqrt(np.maximum(values, 0))
    best = (job.n_components, 1e-9, 10**6)
    for n_vectors in (job.n_components, job.n_components + GUARDS, 2 * job.n_components):
        for tol in 10.0 ** -np.arange(4, 10, 0.25):
            found, passes = _lobpcg(lambda v: gram @ v, len(gram), job.n_components, n_vectors, tol)
            if passes >= best[2]:
                break
            angle = subspace_angle((root[:, None] * (basis.T @ found)).T, np.eye(len(gram))[::-1][: job.n_components])
            if angle < 8e-7:
                best = (n_vectors, float(tol), passes)
                break
    return best


@contender("wide", "scikit-learn IncrementalPCA", part=settings(threads=(1, cores()), batch=(50, 100, 200, 500)))
def sklearn_incremental(job: Job) -> Callable[..., Answer]:
    return _incremental(job)


@contender("wide", "scikit-learn IncrementalPCA, one batch", part=BLAS)
def sklearn_incremental_whole(job: Job) -> Callable[..., Answer]:
    run = _incremental(job)
    return lambda threads: run(threads, job.x.shape[0])


def _incremental(job: Job) -> Callable[..., Answer]:
    from sklearn.decomposition import IncrementalPCA
    from threadpoolctl import threadpool_limits

    def run(threads: int, batch: int) -> Answer:
        x = job.x
        pca = IncrementalPCA(job.n_components)
        starts = [i for i in range(0, len(x), batch) if len(x) - i >= job.n_components]
        with threadpool_limits(threads):
            for i in starts:  # not fit, which would copy the whole
                pca.partial_fit(x[i : None if i == starts[-1] else i + batch])
        return Answer(pca.components_, f"float32, batches of {batch:,} rows, mapped, BLAS on {threads}", 1)

    return run


@contender("wide", "scikit-learn PCA, randomized", part=BLAS)
def sklearn_randomized(job: Job) -> Callable[..., Answer]:
    return _randomized(job)


@contender("wide", "scikit-learn PCA, randomized for 1e-3", part=BLAS, goal=1e-3, whole=settings(power=(10, 14, 20)))
def sklearn_randomized_1e3(job: Job) -> Callable[..., Answer]:
    return _randomized(job)


@contender("wide", "scikit-learn PCA, randomized for 1e-6", part=BLAS, goal=1e-6, whole=settings(power=(20, 25, 30)))
def sklearn_randomized_1e6(job: Job) -> Callable[..., Answer]:
    return _randomized(job)


def _randomized(job: Job) -> Callable[..., Answer]:
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    def run(threads: int, power: int | str = "auto") -> Answer:
        pca = PCA(job.n_components, svd_solver="randomized", iterated_power=power, random_state=0, copy=False)
        with threadpool_limits(threads):
            pca.fit(np.array(job.x))  # in memory of its own, so that nothing is copied to be centred
        n_iterations = 7 if power == "auto" else int(power)
        how = f"float32, in memory, iterated_power {power}, BLAS on {threads}"
        return Answer(pca.components_, how, 2 * n_iterations + 2)

    return run


@contender("wide", "scikit-learn PCA, covariance_eigh")
def sklearn_covariance_eigh(job: Job) -> Callable[[], Answer]:
    """D x D: impossible where D is large, and it offers nothing on the shorter side."""
    from sklearn.decomposition import PCA

    def run() -> Answer:
        pca = PCA(job.n_components, svd_solver="covariance_eigh").fit(job.x)
        return Answer(pca.components_, "float32, mapped", 1)

    return run


@contender("wide", "Dask svd_compressed, 2 iterations", part=settings(width=WIDTHS, threads=(1, cores())))
def dask_svd_2(job: Job) -> Callable[..., Answer]:
    return _svd_compressed(job, 2)


@contender("wide", "Dask svd_compressed, 4 iterations", part=settings(width=WIDTHS, threads=(1, cores())))
def dask_svd_4(job: Job) -> Callable[..., Answer]:
    return _svd_compressed(job, 4)


@contender("wide", "Dask svd_compressed, for 1e-3", part=settings(width=WIDTHS, threads=(1, cores())), goal=1e-3,
           whole=settings(power=(10, 14, 20)))  # fmt: skip
def dask_svd_1e3(job: Job) -> Callable[..., Answer]:
    return _svd_compressed(job, 10)


def _svd_compressed(job: Job, n_power_iter: int) -> Callable[..., Answer]:
    import dask.array as da

    def run(width: int, threads: int, power: int = n_power_iter) -> Answer:
        x = from_file(job.x, (-1, width))
        x = x - x.mean(axis=0)
        v = da.linalg.svd_compressed(x, job.n_components, iterator="QR", n_power_iter=power, seed=0)[2]
        how = f"float32, chunks of {width:,} columns, iterator QR, n_power_iter {power}, {said(threads)}"
        return Answer(compute(v, threads), how, 2 * power + 2)

    return run


@contender("wide", "dask-ml PCA, randomized", part=settings(width=WIDTHS, threads=(1, cores())))
def daskml_pca(job: Job) -> Callable[..., Answer]:
    import dask
    from dask_ml.decomposition import PCA
    from threadpoolctl import threadpool_limits

    def run(width: int, threads: int) -> Answer:
        pca = PCA(job.n_components, svd_solver="randomized", iterated_power=4, random_state=0)
        with threadpool_limits(threads), dask.config.set(scheduler="threads", num_workers=cores()):
            pca.fit(from_file(job.x, (-1, width)))
        components = np.asarray(pca.components_)
        return Answer(components, f"float32, chunks of {width:,} columns, iterated_power 4, {said(threads)}", 10)

    return run


@contender("wide", "Spark MLlib computePrincipalComponents", spark=True)
def mllib_pca(job: Job) -> Callable[[], Answer]:
    """On every n-th column, whose spectrum is that of all; above 65,535 columns it iterates (ARPACK).

    There it does not centre the rows, and the first component is their mean: they are centred beforehand.
    """
    d = job.x.shape[1]
    columns = slice(0, None, max(1, round(d / job.spark_columns)))
    x = job.x[:, columns]
    matrix, said = row_matrix(job, x - x.mean(axis=0))

    def run() -> Answer:
        value = matrix.computePrincipalComponents(job.n_components).toArray().T
        return Answer(value, f"float64, centred rows cached in the JVM, {said}", slice_of=(slice(None), columns))

    return run
