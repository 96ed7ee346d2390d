"""Letters to sweep over: the 10,000 of notMNIST, grown to as many rows as are wanted by declared augmentation.

    python benchmarks/letters.py FOLDER [--data ../shared/data] [--rows 200000] [--seed 0]

8,000 letters are for training and 2,000 for validation, by a permutation of the seed; validation letters that are
identical to a training one are left out. The first 8,000 rows are the training letters themselves; the others are
training letters drawn at random and deformed, of which no validation letter is one. Fewer rows are the first ones
of more. Writes rows.npy (n, 784) uint8, labels.npy (n,), validation_rows.npy, validation_labels.npy, letters.json.
"""

import argparse
import gzip
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.lib.format import open_memmap

SIDE = 28
N_TRAIN = 8_000
BATCH = 8_000  # rows that are drawn at once
ROWS, LABELS = ("rows.npy", "validation_rows.npy"), ("labels.npy", "validation_labels.npy")
DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
FILES = "notmnist-t10k-images-idx3-ubyte.gz", "notmnist-t10k-labels-idx1-ubyte.gz"


@dataclass(frozen=True)
class Augmentation:
    """Ranges are even and symmetric; pixels between the grid's are bilinear, those outside are black."""

    degrees: float = 12  # of rotation
    scale: float = 0.12
    shear: float = 0.15
    shift: float = 2  # pixels, along both axes
    noise: float = 0.06  # SD of white noise, of the range of a pixel
    noisy: float = 0.5  # share of the rows that have it

    def __str__(self) -> str:
        return (
            f"rotated by ±{self.degrees:g}°, scaled by ±{self.scale:.0%}, sheared by ±{self.shear:g}, shifted by "
            f"±{self.shift:g} pixels, white noise of {self.noise:.0%} on {self.noisy:.0%} of them"
        )


@numba.njit(cache=True)
def _deform(letters, chosen, maps, noise, noisy, out):
    """Rows of ``out`` from letters at ``chosen``, where ``maps`` (n, 2, 3) lead from pixels of the new one to old."""
    middle = (SIDE - 1) / 2
    used = 0
    for i in range(len(chosen)):
        letter = letters[chosen[i]]
        for r in range(SIDE):
            for c in range(SIDE):
                x, y = c - middle, r - middle
                u = maps[i, 0, 0] * x + maps[i, 0, 1] * y + maps[i, 0, 2] + middle
                v = maps[i, 1, 0] * x + maps[i, 1, 1] * y + maps[i, 1, 2] + middle
                left, top = int(np.floor(u)), int(np.floor(v))
                value = 0.0
                for row in range(top, top + 2):
                    for column in range(left, left + 2):
                        if 0 <= row < SIDE and 0 <= column < SIDE:
                            share = (1 - abs(u - column)) * (1 - abs(v - row))
                            value += share * letter[row * SIDE + column]
                if noisy[i]:
                    value += noise[used, r * SIDE + c]
                out[i, r * SIDE + c] = np.uint8(min(255.0, max(0.0, np.rint(value))))
        used += noisy[i]


def _drawn(letters: np.ndarray, augmentation: Augmentation, random: np.random.Generator) -> tuple[np.ndarray, ...]:
    """BATCH deformed letters and which ones they are."""
    chosen = random.integers(0, len(letters), BATCH)
    angle = np.deg2rad(random.uniform(-1, 1, BATCH) * augmentation.degrees)
    scale = 1 + random.uniform(-1, 1, BATCH) * augmentation.scale
    shear = random.uniform(-1, 1, BATCH) * augmentation.shear
    shift = random.uniform(-1, 1, (2, BATCH)) * augmentation.shift
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    maps = np.array([[cosine, shear * cosine - sine, shift[0]], [sine, shear * sine + cosine, shift[1]]])
    noisy = random.random(BATCH) < augmentation.noisy
    noise = random.standard_normal((int(noisy.sum()), SIDE**2), np.float32) * np.float32(255 * augmentation.noise)
    rows = np.empty((BATCH, SIDE**2), np.uint8)
    _deform(letters, chosen, np.ascontiguousarray(maps.transpose(2, 0, 1)), noise, noisy, rows)
    return rows, chosen


def load(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """The letters (10000, 784) uint8 and their labels (10000,) uint8, A to J as 0 to 9."""
    for name in FILES:
        if not (data / name).exists():
            raise SystemExit(f"{data}: has no {name}. Give the folder that has it by --data.")
    pixels, labels = (gzip.decompress((data / name).read_bytes()) for name in FILES)
    return np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, SIDE**2), np.frombuffer(labels, np.uint8, offset=8)


def write(folder: Path, data: Path = DATA, n_rows: int = 200_000, seed: int = 0) -> dict[str, Any]:
    """Write the files, unless they are there; what letters.json says of them."""
    augmentation = Augmentation()
    asked = {"source": "notMNIST", "n_rows": n_rows, "seed": seed, "augmentation": asdict(augmentation)}
    declared = folder / "letters.json"
    if declared.exists() and {**(told := json.loads(declared.read_text())), **asked} == told:
        return told
    letters, labels = load(data)
    random = np.random.default_rng(seed)
    order = random.permutation(len(letters))
    train, rest = order[:N_TRAIN], order[N_TRAIN:]
    known = {letters[i].tobytes() for i in train}
    valid = np.array([i for i in rest if letters[i].tobytes() not in known])
    folder.mkdir(parents=True, exist_ok=True)
    declared.unlink(missing_ok=True)  # written last: it says that the others are whole
    np.save(folder / ROWS[1], letters[valid])
    np.save(folder / LABELS[1], labels[valid])
    rows = open_memmap(folder / ROWS[0], "w+", np.uint8, (n_rows, SIDE**2))
    of_rows = np.empty(n_rows, np.uint8)
    n = min(N_TRAIN, n_rows)
    rows[:n], of_rows[:n] = letters[train[:n]], labels[train[:n]]
    for start in range(N_TRAIN, n_rows, BATCH):
        drawn, chosen = _drawn(letters[train], augmentation, random)
        n = min(BATCH, n_rows - start)
        rows[start : start + n], of_rows[start : start + n] = drawn[:n], labels[train][chosen[:n]]
    rows.flush()
    np.save(folder / LABELS[0], of_rows)
    left_out = len(rest) - len(valid)
    text = (
        f"notMNIST, {len(letters):,} letters of 28 x 28, seed {seed}: {N_TRAIN:,} for training, {len(valid):,} for "
        f"validation ({left_out} identical to a training letter left out). Rows from {N_TRAIN:,} on, of {n_rows:,}, "
        f"are training letters drawn at random, {augmentation}."
    )
    told = {**asked, "n_validation": len(valid), "left_out": left_out, "text": text}
    declared.write_text(json.dumps(told, indent=1) + "\n")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=DATA, help="the folder that holds notMNIST's IDX files")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    begun = time.perf_counter()
    print(write(asked.folder, asked.data, asked.rows, asked.seed)["text"])
    print(f"{time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    main()
