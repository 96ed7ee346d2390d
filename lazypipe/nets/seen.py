"""What a training has measured: sums over the epoch so far, and how fast it goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

TOLD_SECONDS = 1.0  # between two tellings of steps, at least


class Seen:
    """Sums of the measures over the epoch so far, and since steps were last told of."""

    def __init__(self, names: tuple[str, ...], n_waiting: int, device: torch.device):
        self.names = names
        self._sums = torch.zeros(n_waiting, len(names), device=device)
        self._batches: list[tuple[int, int]] = []  # rows and place in the epoch of those that wait
        self.forget()

    def forget(self) -> None:
        """A new epoch."""
        self._total, self._n = [0.0] * len(self.names), 0
        self._recent, self._n_recent = [0.0] * len(self.names), 0

    @property
    def full(self) -> bool:
        """Whether as many batches wait as there is room for."""
        return len(self._batches) == len(self._sums)

    def add(self, sums: Tensor, n_rows: int, batch: int) -> None:
        """Let the sums of a batch of so many rows wait; the device is not waited for."""
        self._sums[len(self._batches)].copy_(sums)
        self._batches.append((n_rows, batch))

    def take(self) -> Iterator[tuple[float, int]]:
        """The mean first measure of each batch that waits, and its place; its sums are added."""
        values, batches = self._sums[: len(self._batches)].tolist(), self._batches
        self._batches = []
        for sums, (n_rows, batch) in zip(values, batches, strict=True):
            yield sums[0] / n_rows, batch
            for i, value in enumerate(sums):
                self._total[i] += value
                self._recent[i] += value
            self._n += n_rows
            self._n_recent += n_rows

    def means(self) -> dict[str, float]:
        """Of the epoch so far, by measure."""
        return {name: value / max(1, self._n) for name, value in zip(self.names, self._total, strict=True)}

    def recent(self) -> dict[str, float]:
        """Means since this was last called."""
        values = [value / max(1, self._n_recent) for value in self._recent]
        self._recent, self._n_recent = [0.0] * len(self.names), 0
        return dict(zip(self.names, values, strict=True))

    def state(self) -> dict[str, Any]:
        """The sums of the epoch so far, for JSON; ``restore`` takes them back."""
        return {"total": self._total, "n": self._n}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._total, self._n = list(state["total"]), state["n"]


class Lap:
    """The steps since they were last told of: their rows, and the time they took.

    ``waited`` are the seconds that had been waited for rows when it began.
    """

    def __init__(self, waited: float):
        self.rows, self.waited, self._begun = 0, waited, time.monotonic()

    def seconds(self) -> float:
        return max(time.monotonic() - self._begun, 1e-9)

    def is_over(self) -> bool:
        """Whether it is time to tell of these steps."""
        return self.seconds() > TOLD_SECONDS
