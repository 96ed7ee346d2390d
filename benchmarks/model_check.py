"""Is the model of docs/scale.md true? What it predicts for jobs of this machine, beside what they take.

    python benchmarks/model_check.py [--repeats 3] [--patience 120] [--folder /tmp] [--only covariance ...] [--draw]

Rates of this machine are measured first, by loops of their own (model_rates.py), with as many cores busy as a job has
workers. Then covariances, PCAs, a regression and averages of spikes of 0.5 to 2 GB run on one worker and on two: on
threads of this process (Dask), and on a cluster of processes. Where other processes took a quarter of a core in every
run, seconds are those on a processor. Writes results/model_check.{json,md} and docs/figures/scale.png; with --draw the
page and the figure alone, from the results that are there.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def tiles(path: Path, engine: Engine) -> Plan:
    return lp.covariance(path, engine=engine, out=path.with_name("tiles.zarr"), overwrite=True).plan


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
    Case("covariance in tiles, 2,000 x 12,000", "few.npy", tiles),
    Case("linear regression, 250,000 x 1,000", "tall.npy", regression),
    Case("PCA by gradient, 2,000 x 250,000, panels", "wide.zarr", components("gradient")),
    Case("PCA by gradient, 2,000 x 250,000, rows", "wide.npy", components("gradient")),
    Case("PCA by gradient, 2,000 x 100,000, panels", "less_wide.zarr", components("gradient")),
    Case("PCA by Gram matrix, 2,000 x 100,000", "less_wide.zarr", components("gram")),
    Case("spikes, 50 units, 60 lags x 384 channels", "recording.npy", averages(50, (-30, 30))),
    Case("spikes, 20 units, 600 lags x 384 channels", "recording.npy", averages(20, (-300, 300))),
)


def make(folder: Path) -> None:
    """The data, warm."""
    for name, shape in (("tall", (250_000, 1_000)), ("thin", (1_000_000, 250)), ("square", (60_000, 3_000))):
        lp.generate(folder / f"{name}.npy", *shape, spectrum="1/i", rank=20, mean=1.0, noise=0.05)
    for name, n_columns in (("wide", 250_000), ("less_wide", 100_000), ("few", 12_000)):
        lp.generate(folder / f"{name}.npy", 2_000, n_columns, spectrum="1/i", rank=50, noise=0.003)
    for name in ("wide", "less_wide"):
        lp.convert(folder / f"{name}.npy", folder / f"{name}.zarr")
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
def place(kind: str, n: int, folder: Path) -> Iterator[Callable[[], Engine]]:
    """What opens an engine on ``n`` workers of Dask: threads of this process, or processes that run meanwhile."""
    if kind == "process":
        yield lambda: lp.open_engine("dask", memory=MEMORY, workers=n)
        return
    with tempfile.TemporaryDirectory(dir=folder) as logs, dask_cluster(Path(logs), workers=n) as address:
        yield lambda: lp.open_engine("dask", address=address, memory=MEMORY)


def machine_of(folder: Path, n: int, engine: Engine, options: argparse.Namespace) -> Machine:
    """The rates with ``n`` cores busy, and those of that engine."""

    def rate(loop: rates.Loop, n_busy: int = n) -> float:
        loop.run()
        return loop.amount / rates.undisturbed(loop.run, n_busy, options.repeats, options.patience).seconds

    network = 1.0
    if not engine.host.shared and n > 1:
        client = engine.client  # type: ignore[attr-defined]
        workers = sorted(client.scheduler_info(n_workers=-1)["workers"])
        network = rate(rates.sending(client, workers), 1) / 1e9
    read = rate(rates.reading(folder / "tall.npy", n))
    alone = 1 / rate(rates.pieces(folder / "wide.npy", n, 4 * 250_000)) - rates.PIECE / read
    return Machine(
        storage=read / 1e9,
        shared_storage=n * read / 1e9,
        page=4,
        piece=max(0.0, alone * 1e6),
        network=network,
        memory=rate(rates.adding(n)) / 1e9,
        float32=rate(rates.symmetric("float32", n)) / 1e9,
        float64=rate(rates.symmetric("float64", n)) / 1e9,
        thin=rate(rates.thin(n)) / 1e9,
        decomposition=rate(rates.decomposing(), 1) / 1e9,
        additions=rate(rates.adding_windows(n)) / 1e9,
        task=1e3 / rate(rates.handing_out(engine, folder / "small.npy"), 1),
    )


def timed(case: Case, path: Path, engine: Engine, n: int, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of a case, and its plan."""
    plans = [case.run(path, engine)]  # once for imports and compiled loops
    engine.reset_peak()
    took = rates.undisturbed(lambda: plans.append(case.run(path, engine)), n, options.repeats, options.patience)
    return took._asdict() | {"peak": engine.peak_memory(), "plan": plans[-1]}


def check(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    machines: dict[str, dict[str, float]] = {}

    for kind, n in (("process", 1), ("process", cores()), ("cluster", 1), ("cluster", cores())):
        with place(kind, n, folder) as opened:
            with opened() as engine:
                machine = machine_of(folder, n, engine, options)
            machines[f"{kind} {n}"] = asdict(machine)
            print(f"{kind}, {n}: " + ", ".join(f"{name} {rate:.3g}" for name, rate in asdict(machine).items()))
            for case in CASES:
                if options.only and not any(word in case.name for word in options.only):
                    continue
                with opened() as engine:
                    found = timed(case, folder / case.source, engine, n, options)
                plan = found.pop("plan")
                seconds = predict(plan, machine, n).seconds
                row = {"case": case.name, "place": kind, "workers": n, "planned": plan.peak_nbytes}
                rows.append(row | {"predicted": asdict(seconds) | {"total": seconds.total}, **found})
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
