"""Restricted Boltzmann machines that learn: contrastive divergence, and its persistent form."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from lazypipe.checks import named
from lazypipe.errors import ConfigError, DataError
from lazypipe.nets.energy import EnergyModel, Visible
from lazypipe.nets.network import PRECISIONS
from lazypipe.nets.sampling import Sampler

JUDGING_SEED = 0


class Boltzmann(EnergyModel):
    """A restricted Boltzmann machine (see EnergyModel) that learns; a Learner.

    ``learn`` writes an estimate of the gradient of the batch's mean of -log p(v): what the model says less what the
    data say. The model's side comes from the ends of Gibbs chains of ``k`` steps, one a row. The chains start at the
    data (contrastive divergence, CD-k; Hinton, Neural Computation 2002) or, if ``persistent``, where they ended in the
    batch before (Tieleman, ICML 2008), chain i going on in row i of every batch; before the first batch their hidden
    units are each 1 half the time. A batch has at most ``n_chains`` rows then.

    What is sampled (after Hinton 2012, A practical guide to training RBMs, section 3): hidden units always where they
    drive visible ones, never where they enter a statistic; visible units in all steps but the last, which takes their
    probabilities or means: these tell the same with less noise. Where chains are ``persistent`` the last step samples
    them too: only so do the chains follow the model, and the estimate of chains that do has no bias.

    Measure, summed over rows: ``reconstruction_error``, the squared error of p(v | h), mean over visible units, where
    h is sampled given the row; if ``persistent``, and in ``judge``, h are its probabilities. Judgements beside it:
    ``pseudo_likelihood`` (binary units only), of the same units whenever parts of the same sizes are judged, and
    ``free_energy``, of which only the difference between rows that were learnt and others has a meaning.

    In ``precision`` "bfloat16" the products of ``learn`` are of rounded parameters, rows and probabilities; the
    difference of data and model is rounded once, not each of both, and parameters and gradient stay float32.

    ``random`` is on the device. Memory beside the parameters and their gradient: ``boltzmann_nbytes``, and the chains.

    Raises ConfigError for an argument that makes no sense.
    """

    measures: tuple[str, ...] = ("reconstruction_error",)

    def __init__(
        self,
        n_visible: int,
        n_hidden: int,
        random: Generator,
        *,
        visible: Visible = "bernoulli",
        k: int = 1,
        persistent: bool = False,
        n_chains: int = 0,
        precision: str = "float32",
    ):
        super().__init__(n_visible, n_hidden, visible, random.device)
        self.dtype = named("precision", precision, PRECISIONS)
        if k < 1:
            raise ConfigError(f"k: {k} steps of a chain lead nowhere. Pass 1 or more.")
        if persistent and n_chains < 1:
            raise ConfigError("n_chains: persistent chains need one for each row of a batch. Pass the rows of a batch.")
        self.random, self.k, self.persistent = random, k, persistent
        self.judgements: tuple[str, ...] = ("reconstruction_error", *["pseudo_likelihood"] * self.binary, "free_energy")
        self._sampler = Sampler(random)
        self._memory: dict[str, Tensor] = {}
        self._parts: dict[int, _Part] = {}
        self._rounded: Tensor | None = None
        self._judging: Generator | None = None
        self._used = 0  # chains, by the parts of this batch so far
        self.chains = torch.full((n_chains * persistent, n_hidden), 0.5, dtype=self.dtype, device=random.device)
        self._sampler.binary(self.chains, out=self.chains)

    def learn(self, rows: Tensor, targets: Tensor | None, n_batch: int, first: bool) -> Tensor:
        """Write (``first``) or add the gradient of a batch of ``n_batch`` rows, of which these are some.

        The sum over these rows of the measure, (1,). Raises DataError for more rows in a batch than chains.
        """
        self._judging = None
        layer, part = self._layer(first), self._part(len(rows))
        part.data.copy_(rows)
        layer.rise(part.data, part.hidden_data)
        if self.persistent:
            chains = self._next_chains(len(rows), first)
            layer.fall(part.hidden_data, part.model)
        else:
            chains = self._sampler.binary(part.hidden_data, out=part.chains)
            layer.fall(chains, part.model)
        error = torch.sub(rows, part.model, out=part.error).view(-1)
        sums = torch.dot(error, error).div_(self.n_visible)[None]
        for step in range(self.k):
            last = step == self.k - 1
            if step or self.persistent:
                layer.fall(chains, part.model)
            if self.persistent or not last:
                self.sample_visible(part.model, self._sampler)
            layer.rise(part.model, part.hidden_model)
            if self.persistent or not last:
                self._sampler.binary(part.hidden_model, out=chains)
        self._add_gradient(part, rows, -1 / n_batch, first)
        return sums

    def judge(self, rows: Tensor, targets: Tensor | None) -> Tensor:
        """The sums over rows of ``judgements``; no random number of ``random`` is used."""
        drive = self._drive(rows)
        error = self.visible(drive.sigmoid()).sub_(rows).view(-1)
        sums = [torch.dot(error, error) / self.n_visible]
        del error
        if self.binary:
            if self._judging is None:
                self._judging = Generator(self.device).manual_seed(JUDGING_SEED)
            units = torch.randint(self.n_visible, (len(rows),), generator=self._judging, device=self.device)
            sums.append(self._pseudo(rows, drive, units).sum())
        return torch.stack([*sums, self._free(rows, drive).sum()])

    def tensors(self) -> dict[str, Tensor]:
        """The persistent chains, (n_chains, n_hidden) of 0 and 1, if there are any."""
        return {"chains": self.chains} if self.persistent else {}

    def release(self) -> None:
        """Let go of what is kept between steps, but for the chains."""
        self._memory.clear()
        self._parts.clear()
        self._sampler.release()
        self._rounded = None

    def _layer(self, first: bool) -> _Layer:
        """The parameters as products take them, rounded anew for the first part of a batch."""
        values = self.parameters.values
        if self.dtype is not torch.float32:
            if self._rounded is None:
                self._rounded = self.parameters.vector.to(self.dtype)
            elif first:
                self._rounded.copy_(self.parameters.vector)
            values = self.parameters.views(self._rounded)
        return _Layer(values["weight"], values["hidden_bias"], values["visible_bias"], self.binary)

    def _next_chains(self, n: int, first: bool) -> Tensor:
        start = 0 if first else self._used
        self._used = start + n
        if self._used > len(self.chains):
            raise DataError(
                f"persistent chains: a batch of {self._used} rows or more has only {len(self.chains)}. Make the "
                f"machine with n_chains of the largest batch."
            )
        return self.chains[start : self._used]

    def _add_gradient(self, part: _Part, rows: Tensor, scale: float, first: bool) -> None:
        """Data less model, times ``scale``."""
        gradients = self.parameters.gradients
        if first:
            # A product that adds to zeros is faster on a processor than one that overwrites.
            self.parameters.gradient.zero_()
        part.hidden_model.neg_()
        if self.dtype is torch.float32:
            gradients["weight"].addmm_(part.hidden.t(), part.visible, alpha=scale)
        else:
            gradients["weight"].add_(torch.mm(part.hidden.t(), part.visible), alpha=scale)
        gradients["hidden_bias"].add_(part.hidden.sum(0, dtype=torch.float32), alpha=scale)
        gradients["visible_bias"].add_(torch.sub(rows, part.model, out=part.error).sum(0), alpha=scale)

    def _part(self, n: int) -> _Part:
        """Memory for a part of n rows, kept between steps; the largest part's serves all."""
        part = self._parts.get(n)
        if part is None:
            if n > max(self._parts, default=0):
                self._parts.clear()
                self._memory = {
                    "visible": torch.empty(2 * n * self.n_visible, dtype=self.dtype, device=self.device),
                    "hidden": torch.empty(2 * n * self.n_hidden, dtype=self.dtype, device=self.device),
                    "chains": torch.empty(n * self.n_hidden, dtype=self.dtype, device=self.device),
                    "error": torch.empty(n * self.n_visible, device=self.device),
                }
            kept = self._memory
            visible = kept["visible"][: 2 * n * self.n_visible].view(2 * n, -1)
            hidden = kept["hidden"][: 2 * n * self.n_hidden].view(2 * n, -1)
            chains = kept["chains"][: n * self.n_hidden].view(n, -1)
            error = kept["error"][: n * self.n_visible].view(n, -1)
            part = _Part(visible, visible[:n], visible[n:], hidden, hidden[:n], hidden[n:], chains, error)
            self._parts[n] = part
        return part


class _Layer(NamedTuple):
    """Weights and biases in the dtype of the products."""

    weight: Tensor
    hidden_bias: Tensor
    visible_bias: Tensor
    binary: bool

    def rise(self, visible: Tensor, hidden: Tensor) -> None:
        """Into ``hidden`` the probabilities given ``visible``."""
        torch.addmm(self.hidden_bias, visible, self.weight.t(), out=hidden).sigmoid_()

    def fall(self, hidden: Tensor, visible: Tensor) -> None:
        """Into ``visible`` the probabilities or means given ``hidden``."""
        torch.addmm(self.visible_bias, hidden, self.weight, out=visible)
        if self.binary:
            visible.sigmoid_()


class _Part(NamedTuple):
    """Memory for n rows. Data lie above model, so that one product tells their difference."""

    visible: Tensor  # (2 n, n_visible)
    data: Tensor
    model: Tensor
    hidden: Tensor  # (2 n, n_hidden), probabilities
    hidden_data: Tensor
    hidden_model: Tensor  # times -1, once the chains have ended
    chains: Tensor  # (n, n_hidden), of contrastive divergence
    error: Tensor  # (n, n_visible) float32


def boltzmann_nbytes(n_visible: int, n_hidden: int, n_rows: int, itemsize: int = 4) -> int:
    """Bytes at most of a machine that learns from parts of so many rows; ``itemsize`` is that of the products.

    Persistent chains and float32 parameters are not included.
    """
    n_weights = n_visible * n_hidden
    kept = itemsize * (2 * n_visible + 3 * n_hidden) + 4 * n_visible
    judging = 4 * max(2 * n_hidden + n_visible, 4 * n_hidden)
    rounded = 2 * (2 * n_weights + n_visible + n_hidden) * (itemsize == 2)
    return n_rows * (kept + judging) + Sampler.nbytes(n_rows * max(n_hidden, n_visible)) + rounded
