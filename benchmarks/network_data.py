"""MNIST and notMNIST as files, as the stages of networks.py read them.

Digits are converted once from their gzipped IDX files: rows (n, 784) uint8, and the training rows / 255 as float32.
Letters are those of letters.py, of which none is augmented.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import letters
import numpy as np
from letters import N_TRAIN
from numpy.lib.format import open_memmap

DIGITS = {"rows": "mnist-train-images", "test_rows": "mnist-t10k-images"}
LABELS = {"labels": "mnist-train-labels", "test_labels": "mnist-t10k-labels"}
PART = 10_000  # rows at once


@dataclass(frozen=True)
class Data:
    """Folders: ``digits`` and ``letters`` hold rows.npy, labels.npy and what they are tested by."""

    folder: Path

    def digits(self, name: str) -> str:
        return str(self.folder / "digits" / f"{name}.npy")

    def letters(self, name: str) -> str:
        return str(self.folder / "letters" / f"{name}.npy")

    @cached_property
    def labels(self) -> np.ndarray:
        """Of the training digits, int64."""
        return np.load(self.digits("labels"))

    @cached_property
    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """The test digits, entries / 255, float32; and their labels."""
        rows = np.load(self.digits("test_rows")).astype(np.float32) / np.float32(255)
        return rows, np.load(self.digits("test_labels"))

    def scaled(self) -> np.ndarray:
        """The training digits / 255, float32, in memory."""
        return np.load(self.digits("scaled"))


def write(folder: Path, source: Path, n_digits: int | None) -> str:
    """Write what is missing; ``n_digits``: training and test digits, None for all. What they are, in words."""
    data = Data(folder)
    known = letters.write(folder / "letters", source, N_TRAIN)
    told, declared = {"n_digits": n_digits}, folder / "digits" / "digits.json"
    if not declared.exists() or json.loads(declared.read_text()) != told:
        _write_digits(data, source, n_digits)
        declared.write_text(json.dumps(told))
    n, n_test = len(data.labels), len(np.load(data.digits("test_labels")))
    return (
        f"MNIST, {n:,} digits for training and {n_test:,} for tests, in their order; notMNIST, {N_TRAIN:,} "
        f"letters for training and {known['n_validation']:,} others for tests, drawn by the seed {known['seed']}."
    )


def _write_digits(data: Data, source: Path, n: int | None) -> None:
    import lazypipe as lp
    from lazypipe.io.labels import read_labels

    Path(data.digits("rows")).parent.mkdir(parents=True, exist_ok=True)
    for name, file in DIGITS.items():
        path = lp.convert(_file(source, f"{file}-idx3-ubyte.gz"), data.digits(name), overwrite=True)
        if n is not None:
            np.save(path, np.load(path)[:n])
    for name, file in LABELS.items():
        np.save(data.digits(name), read_labels(_file(source, f"{file}-idx1-ubyte.gz"))[:n].astype(np.int64))
    rows = np.load(data.digits("rows"), mmap_mode="r")
    scaled = open_memmap(data.digits("scaled"), "w+", np.float32, rows.shape)
    for start in range(0, len(rows), PART):
        scaled[start : start + PART] = rows[start : start + PART] / np.float32(255)
    scaled.flush()


def _file(source: Path, name: str) -> Path:
    if not (source / name).exists():
        raise SystemExit(f"{source}: has no {name}. Give the folder that has it by --data.")
    return source / name
