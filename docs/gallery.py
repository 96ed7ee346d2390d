"""The pictures of gallery.md, from the files that it names.

    python docs/gallery.py --data FOLDER [--only pca sta ...] [--out docs/figures] [--quick]

Seeds are fixed. ``--quick`` tells that the script runs, and nothing of the data: short trainings, few cells.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import lazypipe as lp
from lazypipe import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lazypipe.engines import Engine

HERE = Path(__file__).resolve().parent
DPI = 120
SIDE = 28  # pixels of a digit or a letter
RATE = 500  # Hz, of the H1 recording
WINDOW = (-149, 51)  # samples: from 298 ms before the spike to 100 ms after it
LONGER = (-149, 101)  # and to 200 ms, so that most lags are those where nothing happens
Pictures = dict[str, "Figure"]  # by name


@dataclass(frozen=True)
class Effort:
    """What may be less where only the script is tried."""

    deflated: int = 10  # components, by deflation too
    sweep: Mapping[str, Any] = field(
        default_factory=lambda: {
            "model": ["logistic", "mlp"], "sizes": [50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000],
            "strengths": [3.0, 0.3, 0.03, 0.003], "seeds": range(3), "hidden": 128,
        }
    )  # fmt: skip
    machine: Mapping[str, Any] = field(
        default_factory=lambda: {
            "n_hidden": 400, "epochs": 10, "learning_rate": 0.01, "momentum": 0.5, "threads": 1,
        }
    )  # fmt: skip
    gibbs: int = 1000
    stack: Mapping[str, Any] = field(default_factory=lambda: {"hidden": (500, 500, 500), "epochs": 15})
    few: Mapping[str, Any] = field(
        default_factory=lambda: {"sizes": [50, 100, 300, 1000, 3000], "seeds": range(3), "epochs": 20}
    )
    seconds: int = 10  # of the generated recording


QUICK = Effort(
    deflated=2,
    sweep={"model": ["logistic"], "sizes": [50, 100], "strengths": [1.0, 0.1], "seeds": range(2)},
    machine={"n_hidden": 16, "epochs": 2},
    gibbs=10,
    stack={"hidden": (16, 16), "epochs": 1},
    few={"sizes": [50, 100], "seeds": range(2), "epochs": 1},
    seconds=2,
)


@dataclass(frozen=True)
class Given:
    """Where the files are, where unpacked ones go, and what computes."""

    folder: Path
    unpacked: Path
    engine: Engine
    effort: Effort

    def file(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            raise lp.DataError(f"{path}: no such file. Give the folder that has the files of gallery.md by --data.")
        return path

    def images(self, name: str) -> Path:
        """Images (n, 784) uint8 as .npy, which can be read in place."""
        target = self.unpacked / f"{name}.npy"
        return target if target.exists() else Path(lp.convert(self.file(f"{name}-images-idx3-ubyte.gz"), target))

    def labels(self, name: str) -> Path:
        return self.file(f"{name}-labels-idx1-ubyte.gz")

    def h1(self) -> tuple[lp.Recording, np.ndarray]:
        """The stimulus that the neuron saw, and the samples at which it fired."""
        recording = lp.open_recording(self.file("fly_h1_stimulus.npy"), sampling_rate=RATE)
        return recording, lp.read_spikes(self.file("fly_h1_spikes.npz")).samples


def pca(given: Given) -> Pictures:
    """All digits by the cheapest solver; the test digits by both that iterate."""
    digits, few = given.images("mnist-train"), given.images("mnist-t10k")
    found = lp.PCA(50).fit(digits, engine=given.engine)
    gradient = lp.PCA(given.effort.deflated, solver="gradient").fit(few, engine=given.engine)
    textbook = lp.PCA(given.effort.deflated, solver="deflation").fit(few, engine=given.engine)
    methods = {"block gradient": gradient.history_, "deflation": textbook.history_}
    return {
        "pca_scree": figures.scree(found),
        "pca_components": figures.components(found, (SIDE, SIDE)),
        "pca_convergence": figures.convergence(methods, gradient.tol),
    }


def sta(given: Given) -> Pictures:
    """What the H1 neuron saw before it fired."""
    recording, spikes = given.h1()
    average = lp.spike_triggered_average(recording, spikes, WINDOW, engine=given.engine)
    significance = lp.spike_triggered_significance(recording, spikes, WINDOW, engine=given.engine)
    return {"sta": figures.spike_triggered(average, significance)}


def units(given: Given) -> Pictures:
    """The spikes of H1 by the interval before them, and a generated population."""
    recording, spikes = given.h1()
    trains = by_interval(spikes)
    average = lp.spike_triggered_average(recording, trains, LONGER, spread=False, engine=given.engine)
    probe, sorted_spikes = population(given.effort.seconds)
    window = {"window": (-1, 2), "window_unit": "ms", "engine": given.engine}
    many = lp.spike_triggered_average(probe, sorted_spikes, **window)
    tested = lp.spike_triggered_significance(probe, sorted_spikes, **window)
    return {"units_intervals": figures.units(average), "units_generated": figures.units(many, tested)}


def by_interval(spikes: np.ndarray) -> dict[str, np.ndarray]:
    """The samples of spikes (n,), but for the first, by the time since the spike before, in milliseconds."""
    before = np.diff(spikes) * 1000 // RATE
    edges = [*range(2, 22, 2), 30, 40, 60, 80, 100, 150, 200, 10**9]
    names = [f"{low}" if high - low == 2 else f"{low} to {high - 2}" for low, high in pairwise(edges)]
    names[-1] = f"{edges[-2]} or more"
    place = np.digitize(before, edges) - 1
    return {f"{name} ms": spikes[1:][place == i] for i, name in enumerate(names) if (place == i).any()}


def population(seconds: int, n_units: int = 12, n_channels: int = 32, rate: int = 30_000) -> tuple[lp.Recording, dict]:
    """Noise of 12 µV on a probe, in which each unit but the last leaves its waveform; and their spikes."""
    rng = np.random.default_rng(0)
    values = np.float32(12) * rng.standard_normal((seconds * rate, n_channels), np.float32)
    ms = np.arange(-30, 60) / rate * 1000
    trains = {}
    for unit in range(n_units):
        n = rng.poisson(seconds * rng.uniform(2, 25)) + 2
        trains[unit + 1] = samples = np.sort(rng.choice(np.arange(60, len(values) - 60), n, replace=False))
        width, size = rng.uniform(0.08, 0.2), rng.uniform(30, 110) * (unit + 1 < n_units)
        shape = 0.3 * np.exp(-(((ms - 4 * width) / (2.5 * width)) ** 2)) - np.exp(-((ms / width) ** 2))
        on_channel = np.exp(-np.abs(np.arange(n_channels) - rng.integers(n_channels)) / 1.2)
        for lag, value in zip(range(-30, 60), size * shape, strict=True):
            values[samples + lag] += np.float32(value) * on_channel.astype(np.float32)
    stored = np.round(values / 0.195).astype(np.int16)
    return lp.open_recording(stored, sampling_rate=rate, gain=0.195, unit="µV"), trains


def sweep(given: Given) -> Pictures:
    """Two models of the digits over rows and regularization."""
    train, test = ((given.images(name), given.labels(name)) for name in ("mnist-train", "mnist-t10k"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lp.ConvergenceWarning)  # cells of hardly any regularization
        found = lp.regularization_sweep(
            train, test, divide_by=255, allow_smaller=True, engine=given.engine, **given.effort.sweep
        )
    tell(*found.verdict().lines())
    return {
        "sweep_curves": figures.learning_curves(found),
        "sweep_heat_map": figures.heat_map(found),
        "sweep_confusion": figures.confusion(found),
    }


def rbm(given: Given) -> Pictures:
    """What a Boltzmann machine makes of the digits."""
    digits, test = given.images("mnist-train"), given.images("mnist-t10k")
    machine = lp.RBM(persistent=True, divide_by=255, **given.effort.machine).fit(digits, engine=given.engine)
    rows = np.load(test, mmap_mode="r")[:20]
    pairs = {"digit": rows, "reconstruction": machine.reconstruct(rows)}
    return {
        "rbm_filters": figures.filters(machine.components_),
        "rbm_reconstructions": figures.image_rows(pairs),
        "rbm_samples": figures.samples(machine.sample(50, given.effort.gibbs)),
    }


def labels(given: Given) -> Pictures:
    """Letters: one network from random weights and from a stack that saw all letters, but no label."""
    from lazypipe.nets.stack import save_stack

    train, test = letters(given)
    hidden, file = given.effort.stack["hidden"], given.unpacked / "stack.safetensors"
    options = {"epochs": given.effort.stack["epochs"], "learning_rate": 0.02}
    stack = lp.DBN(hidden, pretraining=options, divide_by=255).pretrain(train[0], engine=given.engine).stack_
    save_stack(file, stack, overwrite=True)
    found = lp.regularization_sweep(
        train, test, model=["dbn", "deep"], strengths=[10_000.0], pretrained=file, divide_by=255, batch_size=50,
        learning_rate=0.05, allow_smaller=True, engine=given.engine, **given.effort.few,
    )  # fmt: skip
    names = {"dbn": "pre-trained without labels", "deep": "from random weights"}
    cells = found.table.to_pylist()
    table = [
        {"n_labels": cell["size"], "seed": cell["seed"], names[cell["model"]]: cell["validation_accuracy"]}
        for cell in cells
    ]
    return {"labels": figures.accuracy_by_labels(table)}


def letters(given: Given) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Four fifths of the letters to learn from; to be tested by, those of the rest that are not among them."""
    from lazypipe.io.labels import read_labels

    rows, classes = np.load(given.images("notmnist-t10k")), read_labels(given.labels("notmnist-t10k"))
    order = np.random.default_rng(0).permutation(len(rows))
    train, rest = np.split(order, [len(rows) * 4 // 5])
    known = {rows[i].tobytes() for i in train}
    test = np.array([i for i in rest if rows[i].tobytes() not in known])
    return (rows[train], classes[train]), (rows[test], classes[test])


MAKERS: dict[str, Callable[[Given], Pictures]] = {
    "pca": pca, "sta": sta, "units": units, "sweep": sweep, "rbm": rbm, "labels": labels,
}  # fmt: skip
PICTURES = {  # what each makes
    "pca": ("pca_scree", "pca_components", "pca_convergence"),
    "sta": ("sta",),
    "units": ("units_intervals", "units_generated"),
    "sweep": ("sweep_curves", "sweep_heat_map", "sweep_confusion"),
    "rbm": ("rbm_filters", "rbm_reconstructions", "rbm_samples"),
    "labels": ("labels",),
}


def tell(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


class Clock:
    """What has passed since it was made."""

    def __init__(self) -> None:
        self._wall, self._processors = time.perf_counter(), time.process_time()

    def __str__(self) -> str:
        processors = time.process_time() - self._processors
        return f"{time.perf_counter() - self._wall:.1f} s, {processors:.1f} s of processors"


def draw(given: Given, names: list[str], out: Path) -> None:
    """Make those pictures, write them, and tell how long each group took."""
    out.mkdir(parents=True, exist_ok=True)
    begun = Clock()
    for name in names:
        start = Clock()
        for picture, figure in MAKERS[name](given).items():
            path = out / f"{picture}.png"
            write(figure, path)
            tell(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        tell(f"{name}: {start}")
    tell(f"{begun} in all")


def write(figure: Figure, path: Path) -> None:
    """As a PNG of 256 colours, which takes half the room."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    image = Image.open(drawn).convert("RGB")
    image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--data", type=Path, required=True, help="folder that has the files that gallery.md names")
    found.add_argument("--out", type=Path, default=HERE / "figures", help="where pictures go (docs/figures)")
    found.add_argument("--only", nargs="+", choices=MAKERS, default=list(MAKERS), help="these alone")
    found.add_argument("--quick", action="store_true", help="short trainings, few cells")
    return found


def main(argv: list[str] | None = None) -> int:
    asked = parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as unpacked, lp.open_engine("dask", memory="2GiB") as engine:
            given = Given(asked.data, Path(unpacked), engine, QUICK if asked.quick else Effort())
            draw(given, asked.only, asked.out)
    except lp.LazypipeError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
