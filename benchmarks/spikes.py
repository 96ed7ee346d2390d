"""Spike-triggered averages: lazypipe beside what neuroscientists use instead, and its memory as recordings grow.

    python benchmarks/spikes.py [--peers-python peers/bin/python] [--folder /tmp] [--results benchmarks/results]
    python benchmarks/spikes.py --draw           # the tables and the figure again, from spikes.json
    python benchmarks/spikes.py --cases array narrow --seconds 20 --lengths --results /tmp/spikes

SpikeInterface needs an older zarr than lazypipe, so the peers have an environment of their own:

    python -m venv peers && peers/bin/pip install spikeinterface elephant pynapple psutil threadpoolctl

Each contender runs in a process of its own on all cores, on a file that the page cache holds, with the best of
a few settings (the fastest four of a short trial are measured on the whole), after a run on a short recording
that compiles what is to be compiled.
Writes spikes.json, spikes.md and spikes_memory.png.
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# What would take threads or kernels away from a contender.
for name in ("OPENBLAS_CORETYPE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.pop(name, None)

import contenders_spikes  # noqa: F401  (registers its contenders)
import numpy as np
from apart import in_own_process
from averages import CONTENDERS, Contender, contend, read_job, save_exact
from common import cores, describe_machine, today, warm
from recordings import MARGIN, Recording

PREPARING = 600  # seconds that a contender may take before and after what is timed
LIBRARIES = ("numpy", "numba", "spikeinterface", "pynapple", "elephant", "neo")
RATE = 30_000  # Hz
FINALISTS = 4  # settings of a contender that are measured on the whole
PART_SECONDS = 20
PART_SPIKES = 1_000  # of the stimulus
WIDE, NARROW = (-20 * RATE // 1000, 20 * RATE // 1000), (-RATE // 1000, RATE // 1000)
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Case:
    """What is asked of one recording."""

    name: str
    what: str
    window: tuple[int, int]
    spread: bool
    result: str = "float32"  # of lazypipe; what the peers sum in is theirs to choose


ARRAY = (
    Case("array", "mean, ±20 ms", WIDE, False),
    Case("array-spread", "mean and SD, ±20 ms", WIDE, True),
    Case("narrow", "mean, ±1 ms", NARROW, False),
    Case("narrow-spread", "mean and SD, ±1 ms", NARROW, True),
)
DENSE = (
    Case("dense", "mean, ±20 ms", WIDE, False, "float64"),
    Case("dense-spread", "mean and SD, ±20 ms", WIDE, True, "float64"),
)
OFFSET = (Case("offset-spread", "mean and SD, ±1 ms", NARROW, True),)
STIMULUS = (
    Case("stimulus", "mean and SD (pynapple's average and elephant: mean), 150 lags", (-149, 1), True, "float64"),
)
NAMES = [case.name for case in (*STIMULUS, *ARRAY, *DENSE, *OFFSET)]


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data", help="holds the H1 neuron")
    parser.add_argument("--seconds", type=float, default=200, help="of 384 channels at 30 kHz (4.6 GB)")
    parser.add_argument("--dense-seconds", type=float, default=1_000, help="of one channel")
    parser.add_argument("--dense-spikes", type=int, nargs="*", default=[100_000, 1_000_000], help="on one channel")
    parser.add_argument("--dense-dtype", choices=("int16", "float32"), default="int16")
    parser.add_argument("--lengths", type=float, nargs="*", default=[1, 2, 4, 8], help="GB, for memory against length")
    parser.add_argument("--memory", default="512MiB", help="lazypipe's budget of arrays")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--limit", type=float, default=900, help="seconds a contender may take")
    parser.add_argument("--repeats", type=int, default=None, help="runs, of which the median; by default 1 to 15")
    parser.add_argument("--cases", nargs="*", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, metavar="NAME", help=", ".join(CONTENDERS))
    parser.add_argument("--peers-python", default=sys.executable, help="the interpreter that has the peers")
    parser.add_argument("--folder", default=None, help="where the data go for the run (up to 8 GB at a time)")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where tables and figure go")
    parser.add_argument("--draw", action="store_true", help="only write again what spikes.json holds")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)  # the process of one
    parser.add_argument("--spec", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--setting", type=json.loads, default={}, help=argparse.SUPPRESS)
    parser.add_argument("--trial", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def row_of(one: Contender, spec: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The best of the settings that were fastest on the part, measured on the whole."""
    row = {"name": one.name, "title": one.title, "ours": one.ours}
    python = options.peers_python if one.apart else sys.executable
    limit = 20 * options.limit + PREPARING
    command = [python, "-W", "ignore", str(HERE / "spikes.py"), "--contender", one.name, "--spec", str(spec)]
    job = read_job(spec)
    ranked, tried = list(one.tries(job)), []
    if len(ranked) > 1:
        warm(job.part[0])
        lines, _ = in_own_process([*command, "--trial"], limit)
        found = next((line for line in reversed(lines) if "ranked" in line), {})
        ranked, tried = found.get("ranked", ranked), found.get("tried", [])
    rows = []
    for setting in finalists(ranked):
        warm(job.path)
        lines, ended = in_own_process([*command, "--setting", json.dumps(setting)], limit)
        rows.append({**row, "setting": as_text(setting), **(lines[-1] if lines else {"failure": ended})})
    finals = {found["setting"]: found.get("seconds") for found in rows}
    return {**min(rows, key=lambda found: found.get("seconds", math.inf)), "tried": tried, "finals": finals}


def finalists(ranked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best of every pool, since processes start slowly and a short trial holds that against them; the next best."""
    kinds = [next(iter(setting.values()), None) for setting in ranked]
    first = [setting for i, setting in enumerate(ranked) if kinds[i] not in kinds[:i]]
    return [*first, *(setting for setting in ranked if setting not in first)][:FINALISTS]


def as_text(setting: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in setting.items())


@dataclass(frozen=True)
class Data:
    """Files to be averaged, and short ones to warm up with."""

    title: str
    path: Path
    spikes: Path
    part: tuple[Path, Path]
    n_channels: int
    dtype: str
    sampling_rate: float

    def ask(self, case: Case, options: argparse.Namespace, folder: Path) -> Path:
        """The specification of a job, saved."""
        spec = folder / "spec.json"
        told = {name: value for name, value in vars(self).items() if name != "title"}
        told |= {name: getattr(case, name) for name in ("window", "spread", "result")}
        told |= {name: getattr(options, name) for name in ("memory", "workers", "limit", "repeats")}
        spec.write_text(json.dumps({**told, "case": case.name}, default=str))
        return spec


def generated(title: str, recording: Recording, folder: Path) -> Data:
    needed = 1.1 * recording.nbytes
    if shutil.disk_usage(folder).free < needed:
        raise SystemExit(f"{folder}: {needed / 1e9:.1f} GB are needed. Give --folder, or a shorter recording.")
    begun = time.perf_counter()
    short = replace(recording, n_samples=min(recording.n_samples, PART_SECONDS * recording.sampling_rate))
    path, part = folder / "recording.dat", folder / "part.dat"
    recording.write(path)
    short.write(part)
    print(f"  {recording.nbytes / 1e9:.2f} GB written in {time.perf_counter() - begun:.0f} s", flush=True)
    files = path.with_suffix(".npz"), (part, part.with_suffix(".npz"))
    return Data(title, path, *files, recording.n_channels, recording.dtype, recording.sampling_rate)


def h1(source: Path, folder: Path) -> Data:
    """The stimulus that a blowfly's H1 neuron saw, a sample every 2 ms, and its spikes."""
    samples = np.load(source / "fly_h1_spikes.npz")["samples"]
    path, spikes, part = folder / "stimulus.npy", folder / "spikes.npz", folder / "part.npz"
    shutil.copy(source / "fly_h1_stimulus.npy", path)
    np.savez(spikes, samples=samples)
    np.savez(part, samples=samples[:PART_SPIKES])
    title = f"H1 neuron: {len(samples):,} spikes, {len(np.load(path, mmap_mode='r')):,} samples"
    return Data(title, path, spikes, (path, part), 1, "float64", 500.0)


def reading_rate(path: Path, threads: int, nbytes: int = 2**23) -> float:
    """GB/s of reading a file, in the page cache as far as that holds it, into buffers used again and again."""
    size = path.stat().st_size
    edges = [size * i // threads for i in range(threads + 1)]
    file = os.open(path, os.O_RDONLY)

    def read(start: int, stop: int) -> None:
        buffer = memoryview(bytearray(nbytes))
        while start < stop:
            start += os.preadv(file, [buffer[: min(nbytes, stop - start)]], start)

    try:
        with ThreadPoolExecutor(threads) as pool:
            rates = []
            for _ in range(3):
                begun = time.perf_counter()
                list(pool.map(read, edges[:-1], edges[1:]))
                rates.append(size / (time.perf_counter() - begun) / 1e9)
    finally:
        os.close(file)
    return max(rates)


def compare(data: Data, cases: list[Case], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The exact sums, and each contender at each case."""
    widest = max(cases, key=lambda case: case.window[1] - case.window[0])
    job = read_job(data.ask(widest, options, folder))
    save_exact(job, folder / "exact.npz")
    warm(data.path)
    rates = [reading_rate(data.path, threads) for threads in (1, options.workers)]
    n_spikes, shape = len(job.events[0]), job.signal.shape
    told = {
        "title": data.title, "nbytes": data.path.stat().st_size, "shape": list(shape), "dtype": data.dtype,
        "n_spikes": n_spikes, "n_units": job.n_units, "reading": rates, "cases": [],
    }  # fmt: skip
    print(f"{data.title}: {told['nbytes'] / 1e9:.3g} GB, {n_spikes:,} spikes; reading {show_rates(rates)}", flush=True)
    for case in cases:
        spec = data.ask(case, options, folder)
        additions = n_spikes * (case.window[1] - case.window[0]) * shape[1]
        rows = []
        print(f" {case.what}:", flush=True)
        for one in CONTENDERS.values():
            if one.answers(case.name) and (not options.only or one.name in options.only):
                rows.append(row_of(one, spec, options))
                print(f"  {one.title:<42} {short(rows[-1], told['nbytes'])}", flush=True)
        told["cases"].append({"name": case.name, "what": case.what, "additions": additions, "rows": rows})
    return told


def grow(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """lazypipe on ever shorter beginnings of one recording."""
    lengths = sorted(options.lengths, reverse=True)
    recording = Recording(int(lengths[0] * 1e9) // (2 * 384))
    data = generated("384 channels, 50 units", recording, folder)
    samples, units = recording.spikes
    rows = []
    for length in lengths:
        n_samples = int(length * 1e9) // (2 * 384)
        os.truncate(data.path, 2 * 384 * n_samples)
        inside = samples < n_samples - MARGIN
        np.savez(data.spikes, samples=samples[inside], units=units[inside])
        for case in ARRAY[1::2]:
            row = row_of(replace_tries(CONTENDERS["lazypipe"]), data.ask(case, options, folder), options)
            rows.append({"gigabytes": length, "case": case.name, "what": case.what, **row})
            print(f"  {length:>4g} GB  {case.what:<22} {short(row, length * 1e9)}", flush=True)
    rates = [reading_rate(data.path, threads) for threads in (1, options.workers)]
    return {"rows": rows[::-1], "reading": rates}


def replace_tries(one: Contender) -> Contender:
    """With its first setting, untried."""
    return replace(one, tries=lambda job: one.tries(job)[:1])


def short(row: dict[str, Any], nbytes: float) -> str:
    if "seconds" not in row:
        return row.get("failure") or f"> {row['over']:g} s"
    text = f"{row['seconds']:9.4f} s {nbytes / row['seconds'] / 1e9:6.2f} GB/s {row['resident'] / 2**20:6.0f} MiB"
    for key in ("mean_error", "std_error"):
        text += f"  {row[key]:.0e}" if key in row else ""
    return f"{text}  {row['setting']}".rstrip()


def show_rates(rates: list[float]) -> str:
    return f"{rates[0]:.1f} GB/s on one thread, {rates[1]:.1f} on all cores"


def versions(python: str) -> dict[str, str]:
    """Of the interpreter and of what it has of LIBRARIES."""
    lines = [
        "import importlib.metadata as m, json, platform",
        "found = {'Python': platform.python_version()}",
        f"for name in {LIBRARIES}:",
        "    try: found[name] = m.version(name)",
        "    except m.PackageNotFoundError: pass",
        "print(json.dumps(found))",
    ]
    done = subprocess.run([python, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def recordings(options: argparse.Namespace) -> Iterator[tuple[tuple[Case, ...], str, Recording | None]]:
    """Cases, title, and what to generate for them."""
    yield STIMULUS, "H1", None
    yield ARRAY, "384 channels, 50 units", Recording(int(options.seconds * RATE))
    for n in options.dense_spikes:
        samples = int(options.dense_seconds * RATE)
        rates = (n / options.dense_seconds,) * 2
        dense = Recording(samples, 1, options.dense_dtype, n_units=1, rates=rates)
        yield DENSE, f"one channel, {options.dense_dtype}, about {n:,} spikes of one unit", dense
    quiet = Recording(300 * RATE, 32, n_units=5, rates=(50.0, 200.0), offset=8e3, spread=5.0, field=0.0, peak=0.0)
    yield OFFSET, "32 channels, int16 about 8,000 with an SD of 5", quiet


def main() -> None:
    options = options_of()
    if options.contender:
        return contend(options.contender, options.spec, options.trial, options.setting)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # gigabytes are then not left behind
    from spikes_report import write

    saved = options.results / "spikes.json"
    if options.draw:
        return write(json.loads(saved.read_text()), options.results)
    options.results.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "date": today(), "machine": describe_machine(),
        "versions": versions(sys.executable), "peers": versions(options.peers_python),
        "limit": options.limit, "memory": options.memory, "workers": options.workers, "recordings": [],
    }  # fmt: skip
    print(report["machine"], report["versions"], report["peers"], sep="\n", flush=True)
    for cases, title, recording in recordings(options):
        wanted = [case for case in cases if options.cases is None or case.name in options.cases]
        if not wanted:
            continue
        if recording is None and not (options.data / "fly_h1_stimulus.npy").exists():
            print(f"left out: {options.data} has no fly_h1_stimulus.npy. Give --data.")
            continue
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            where = Path(folder)
            data = h1(options.data, where) if recording is None else generated(title, recording, where)
            report["recordings"].append(compare(data, wanted, options, where))
        saved.write_text(json.dumps(report, indent=1) + "\n")
    if options.lengths:
        print("memory as the recording grows:")
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            report["lengths"] = grow(options, Path(folder))
    saved.write_text(json.dumps(report, indent=1) + "\n")
    return write(report, options.results)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
