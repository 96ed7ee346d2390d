"""Column stripes of a wide float32 matrix, from rows (.npy) and from panels (.zarr), cold and warm.

    python benchmarks/panels.py [--columns 200000] [--memory 1GiB] [--folder /tmp]

Converts the one to the other, then runs PCA of three passes over each: the first with the files out of the
page cache, the others with them in it. A pass is cold only where the kernel let go of every page, so the
share that stayed is printed; and where the files lie on a disk, not in memory (/dev/shm).
"""

import argparse
import ctypes
import mmap
import os
import statistics
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from common import describe_machine

import lazypipe as lp
from lazypipe.io.convert import convert
from lazypipe.io.raw_rows import MAPS
from lazypipe.progress import Event, Progress, StageDone
from lazypipe.sizes import GIB, show_bytes

READ_NBYTES = 8 * 2**20


def files_of(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def drop(path: Path) -> None:
    """Write the files out and ask the kernel to forget their pages."""
    for file in files_of(path):
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached_share(path: Path) -> float:
    """Share of the pages of the files that are in the page cache, by mincore."""
    mincore = ctypes.CDLL(None, use_errno=True).mincore
    mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    n_pages, n_cached = 0, 0
    for file in files_of(path):
        size = file.stat().st_size
        with open(file, "rb") as opened, mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_READ) as pages:
            values = np.frombuffer(pages, np.uint8)  # for its address: nothing is touched
            held = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
            if mincore(values.ctypes.data, size, held.ctypes.data):
                raise OSError(ctypes.get_errno(), f"mincore of {file}")
            del values
        n_pages, n_cached = n_pages + len(held), n_cached + int(np.count_nonzero(held & 1))
    return n_cached / n_pages


def raw_read(path: Path) -> float:
    """Seconds to read the files from end to end, 8 MiB a call."""
    buffer = bytearray(READ_NBYTES)
    begun = time.perf_counter()
    for file in files_of(path):
        with open(file, "rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass
    return time.perf_counter() - begun


@dataclass
class Measured:
    """One layout of the matrix, under one budget, and the seconds it took."""

    path: Path
    memory: str
    plan: str = ""
    kept: float = 0.0  # largest share of the pages that stayed in the page cache before a cold pass
    raw: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)

    def run(self) -> None:
        """A cold read from end to end, then a cold pass and two warm ones."""
        drop(self.path)
        self.raw.append(raw_read(self.path))
        drop(self.path)
        self.kept = max(self.kept, cached_share(self.path))
        first, *others = self.passes()
        self.cold.append(first)
        self.warm.extend(others)

    def passes(self) -> list[float]:
        """Seconds of each of three products with the matrix, a pass each."""
        seconds: list[float] = []

        def listen(event: Event) -> None:
            if isinstance(event, StageDone) and event.title.startswith("pass"):
                seconds.append(event.seconds)

        with lp.open_engine("dask", memory=self.memory, progress=Progress((listen,))) as engine:
            pca = lp.PCA(10, solver="gradient", tol=1e-12, max_passes=3).fit(self.path, engine=engine)
        MAPS.release()  # mapped pages could not be dropped
        product = pca.plan_.folds[0]
        self.plan = f"blocks of {product.step:,} columns{', mapped' if product.mapped else ''}"
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--columns", type=int, default=200_000)
    parser.add_argument("--memory", default="1GiB", help="budget of arrays; rows are also run with room for a map")
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--folder", default=None, help="where the data go for the run: three copies of them")
    options = parser.parse_args()
    warnings.simplefilter("ignore", lp.ConvergenceWarning)

    print(describe_machine())
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows, panels = Path(folder) / "wide.npy", Path(folder) / "wide.zarr"
        lp.generate(rows, options.rows, options.columns, spectrum="1/i", rank=50, noise=0.05)
        size = rows.stat().st_size
        print(f"{options.rows:,} x {options.columns:,} float32, {show_bytes(size)}")
        for target in (Path(folder) / "copy.npy", panels):
            begun = time.perf_counter()
            convert(rows, target)
            report(f"convert to {target.suffix}, with fsync", size, [time.perf_counter() - begun])
        (Path(folder) / "copy.npy").unlink()
        room = f"{2 * size / GIB + 1:.0f}GiB"
        measured = [
            Measured(path, memory) for path, memory in ((rows, options.memory), (rows, room), (panels, options.memory))
        ]
        for turn in range(options.repeats):  # in turns, each first once: a disk shared with others drifts
            for layout in measured[turn % 3 :] + measured[: turn % 3]:
                layout.run()
        for layout in measured:
            print(f"  {layout.path.name}, budget {layout.memory}: {layout.plan}")
            report("end to end, cold, no arithmetic", size, layout.raw)
            report(f"pass, cold ({layout.kept:.0%} had stayed cached)", size, layout.cold)
            report("pass, warm", size, layout.warm)


def report(name: str, size: int, seconds: list[float]) -> None:
    middle = statistics.median(seconds)
    print(
        f"    {name:<40} {middle:6.2f} s ({min(seconds):.2f} to {max(seconds):.2f})  {size / middle / 1e9:6.2f} GB/s",
        flush=True,
    )


if __name__ == "__main__":
    main()
