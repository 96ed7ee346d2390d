"""Samples of binary and of Gaussian units, given their probabilities or means."""

from __future__ import annotations

import torch
from torch import Tensor


class Sampler:
    """Turns probabilities into 0 and 1, and means into Gaussian samples of unit variance, in memory that is kept.

    On a processor 16 bits decide a unit: that takes half the time of a float32 each, and drawing them is a tenth of a
    step of learning. A probability is so rounded to the nearest 1/65536; one under 1/131072 never comes true. On
    other devices it is a uniform float32.
    """

    def __init__(self, random: torch.Generator):
        self.random = random
        self._numbers = torch.empty(0, device=random.device)
        self._bits = torch.empty(0, dtype=torch.int64, device=random.device)

    @staticmethod
    def nbytes(n_values: int) -> int:
        """Bytes that are kept to sample so many values at once."""
        return 4 * n_values + 8 * _words(n_values)

    def release(self) -> None:
        """Let go of what is kept."""
        self._numbers, self._bits = self._numbers.new_empty(0), self._bits.new_empty(0)

    def binary(self, probabilities: Tensor, out: Tensor) -> Tensor:
        """Each unit 1 with its probability, else 0, into ``out``, which may be ``probabilities``."""
        numbers = self._room(probabilities)
        if self.random.device.type != "cpu":
            return torch.lt(numbers.uniform_(generator=self.random), probabilities, out=out)
        n_values = probabilities.numel()
        bits = self._bits[: _words(n_values)].random_(-(2**63), None, generator=self.random)
        numbers.copy_(bits.view(torch.int16)[:n_values].view(probabilities.shape))  # -32768 to 32767, uniform
        torch.add(probabilities, numbers, alpha=-(2.0**-16), out=numbers)
        return torch.gt(numbers, 0.5 + 2.0**-17, out=out)

    def gaussian(self, means: Tensor, out: Tensor) -> Tensor:
        """Each unit its mean and a Gaussian of unit variance, into ``out``, which may be ``means``."""
        return torch.add(means, self._room(means).normal_(generator=self.random), out=out)

    def _room(self, like: Tensor) -> Tensor:
        n_values = like.numel()
        if len(self._numbers) < n_values:
            self._numbers = self._numbers.new_empty(n_values)
            self._bits = self._bits.new_empty(_words(n_values))
        return self._numbers[:n_values].view(like.shape)


def _words(n_values: int) -> int:
    """Numbers of 64 bits that hold 16 for each value."""
    return -(-n_values // 4)
