"""Is the model of docs/scale.md true? What it predicts for jobs of this machine, beside what they take.

    python benchmarks/model_check.py [--repeats 3] [--patience 120] [--folder /tmp] [--only covariance ...] [--draw]

Rates of this machine are measured first, by loops of their own (model_rates.py), with as many cores busy as a job has
workers. Then covariances, PCAs, a regression and averages of spikes of 0.5 to 2 GB run on one worker and on two: on
threads of this process (Dask), and on a cluster of processes. A run during which other processes took a quarter of a
core counts only where there is no better one. Writes results/model_check.{json,md} and docs/figures/scale.png; with
--draw the figure and the page alone, from the results that are there.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import model_rates as rates
import model_report
import numpy as np
from common import cores, describe_machine, warm
from servers import dask_cluster

import lazypipe as lp
from lazypipe.engines import Engine
from lazypipe.plan import Plan
from lazypipe.scaling import Machine, predict

RESULTS = Path(__file__).parent / "results" / "model_check.json"
MEMORY = "1GiB"
PASSES = 6  # of PCA: as many as asked for, whatever the residuals
CHANNELS, RATE, SECONDS = 384, 30_000, 45


@dataclass(frozen=True)
class Case:
    """A job: its name, the data it reads, and how it is done, which gives its plan with the passes that it made."""

    name: str
    source: str
    run: Callable[[Path, Engine], Plan]


def covariance(path: Path, engine: Engine) -> Plan:
    return lp.covariance(path, engine=engine).plan


def regression(path: Path, engine: Engine) -> Plan:
    return lp.LinearRegression().fit(path, 0, engine=engine).plan_


def components(solver: str) -> Callable[[Path, Engine], Plan]:
    def run(path: Path, engine: Engine) -> Plan:
        pca = lp.PCA(10, solver=solver, tol=1e-15, max_passes=PASSES).fit(path, engine=engine)
        product, *others = pca.plan_.folds
        made = pca.n_passes_ - sum(fold.work.times for fold in others)
        return replace(pca.plan_, folds=(product.doing(times=made), *others))

    return run


def averages(n_units: int, window: tuple[int, int]) -> Callable[[Path, Engine], Plan]:
    def run(path: Path, engine: Engine) -> Plan:
        recording = lp.open_recording(path, sampling_rate=RATE)
        draw = np.random.default_rng(0)
        n = recording.n_samples
        spikes = {u: np.sort(draw.integers(0, n, 30 * n // RATE)) for u in range(n_units)}  # 30 a second
        return lp.spike_triggered_average(recording, spikes, window, engine=engine).plan

    return run


CASES = (
    Case("covariance, 250,000 x 1,000", "tall.npy", covariance),
    Case("covariance, 1,000,000 x 250", "thin.npy", covariance),
    Case("covariance, 60,000 x 3,000", "square.npy", covariance),
    Case("linear regression, 250,000 x 1,000", "tall.npy", regression),
    Case("PCA by gradient, 2,000 x 250,000, panels", "wide.zarr", components("gradient")),
    Case("PCA by gradient, 2,000 x 250,000, rows", "wide.npy", components("gradient")),
    Case("PCA by Gram matrix, 2,000 x 250,000", "wide.zarr", components("gram")),
    Case("spikes, 50 units, 60 lags x 384 channels", "recording.npy", averages(50, (-30, 30))),
    Case("spikes, 20 units, 600 lags x 384 channels", "recording.npy", averages(20, (-300, 300))),
)


def make(folder: Path) -> None:
    """The data, warm."""
    for name, shape in (("tall", (250_000, 1_000)), ("thin", (1_000_000, 250)), ("square", (60_000, 3_000))):
        lp.generate(folder / f"{name}.npy", *shape, spectrum="1/i", rank=20, mean=1.0, noise=0.05)
    lp.generate(folder / "wide.npy", 2_000, 250_000, spectrum="1/i", rank=50, noise=0.003)
    lp.convert(folder / "wide.npy", folder / "wide.zarr")
    np.save(folder / "small.npy", np.ones((4096, 4), np.float32))
    n = SECONDS * RATE
    recording = np.lib.format.open_memmap(folder / "recording.npy", "w+", np.int16, (n, CHANNELS))
    draw = np.random.default_rng(0)
    for start in range(0, n, RATE):
        recording[start : start + RATE] = draw.integers(-300, 300, (min(RATE, n - start), CHANNELS), np.int16)
    recording.flush()
    for path in folder.rglob("*"):
        if path.is_file():
            warm(str(path))


@contextmanager
def engine_of(kind: str, n: int, folder: Path) -> Iterator[Engine]:
    """Dask with ``n`` workers: threads of this process, or processes."""
    with ExitStack() as stack:
        if kind == "process":
            yield stack.enter_context(lp.open_engine("dask", memory=MEMORY, workers=n))
        else:
            place = stack.enter_context(tempfile.TemporaryDirectory(dir=folder))
            address = stack.enter_context(dask_cluster(Path(place), workers=n))
            yield stack.enter_context(lp.open_engine("dask", address=address, memory=MEMORY))


def machine_of(folder: Path, n: int, engine: Engine, measure: Callable[[Callable[[], float]], float]) -> Machine:
    """The rates with ``n`` cores busy, and those of that engine."""
    tall, wide = folder / "tall.npy", folder / "wide.npy"
    read = measure(lambda: rates.reading(tall, n))
    alone = 1 / measure(lambda: rates.pieces(wide, n, 4 * 250_000)) - rates.PIECE / read
    network = 1.0
    if not engine.host.shared and n > 1:
        client = engine.client  # type: ignore[attr-defined]
        workers = sorted(client.scheduler_info(n_workers=-1)["workers"])
        network = measure(lambda: rates.sending(client, workers)) / 1e9
    return Machine(
        storage=read / 1e9,
        shared_storage=n * read / 1e9,
        page=4,
        piece=max(0.0, alone * 1e6),
        network=network,
        memory=measure(lambda: rates.adding(n)) / 1e9,
        float32=measure(lambda: rates.symmetric("float32", n)) / 1e9,
        float64=measure(lambda: rates.symmetric("float64", n)) / 1e9,
        decomposition=measure(lambda: rates.decomposing(1)) / 1e9,
        additions=measure(lambda: rates.adding_windows(n)) / 1e9,
        task=measure(lambda: rates.handing_out(engine, folder / "small.npy")) * 1e3,
    )


def timed(case: Case, path: Path, engine: Engine, repeats: int, patience: float) -> dict[str, Any]:
    """Seconds and peak memory of a case, and its plan."""
    plans: list[Plan] = []

    def once() -> float:
        begun = time.perf_counter()
        plans.append(case.run(path, engine))
        return time.perf_counter() - begun

    once()  # imports, compiled loops
    engine.reset_peak()
    seconds, others = rates.undisturbed(once, repeats, patience)
    return {"seconds": seconds, "others": others, "peak": engine.peak_memory(), "plan": plans[-1]}


def check(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    machines: dict[str, dict[str, float]] = {}

    def measure(loop: Callable[[], float]) -> float:
        return rates.undisturbed(loop, options.repeats, options.patience)[0]

    for kind, n in (("process", 1), ("process", cores()), ("cluster", 1), ("cluster", cores())):
        with engine_of(kind, n, folder) as engine:
            machine = machine_of(folder, n, engine, measure)
            machines[f"{kind} {n}"] = asdict(machine)
            print(f"{kind}, {n}: " + ", ".join(f"{name} {rate:.3g}" for name, rate in asdict(machine).items()))
            for case in CASES:
                if options.only and not any(word in case.name for word in options.only):
                    continue
                found = timed(case, folder / case.source, engine, options.repeats, options.patience)
                plan = found.pop("plan")
                predicted = predict(plan, machine, n)
                rows.append(
                    {
                        "case": case.name,
                        "place": kind,
                        "workers": n,
                        "predicted": asdict(predicted.seconds) | {"total": predicted.seconds.total},
                        "planned": plan.peak_nbytes,
                        **found,
                    }
                )
                print(model_report.line(rows[-1]), flush=True)
    return {"machine": describe_machine(), "repeats": options.repeats, "rates": machines, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--patience", type=float, default=120, help="seconds to wait for a quiet moment, a measurement")
    parser.add_argument("--folder", default=None, help="where the data go for the run (8 GB)")
    parser.add_argument("--only", nargs="*", default=None, help="words of the names of the cases to run")
    parser.add_argument("--draw", action="store_true", help="draw what is there, and measure nothing")
    options = parser.parse_args()
    if not options.draw:
        print(describe_machine())
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            make(Path(folder))
            found = check(Path(folder), options)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    found = json.loads(RESULTS.read_text())
    model_report.write(found, RESULTS.with_suffix(".md"))
    model_report.draw(found)


if __name__ == "__main__":
    main()
