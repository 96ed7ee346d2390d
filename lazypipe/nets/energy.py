"""The energy of a restricted Boltzmann machine, and what follows from it: conditionals, likelihoods, samples."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lazypipe.checks import named
from lazypipe.nets.initial import fill
from lazypipe.nets.parameters import Parameters
from lazypipe.nets.sampling import Sampler

Visible = Literal["bernoulli", "gaussian"]
LEAST_MEAN = 0.01  # of a binary unit, to start from
VISIBLE: dict[str, str] = {"bernoulli": "0 or 1", "gaussian": "real, of unit variance given the hidden units"}


class EnergyModel:
    """A machine of binary hidden units h and binary or Gaussian visible units v (Smolensky 1986; Hinton 2002).

    With weights W (n_hidden, n_visible), hidden biases c and visible biases b, the energy is

        bernoulli:   E(v, h) = -b·v - c·h - hᵀ W v               v in {0, 1}, or [0, 1] taken as probabilities
        gaussian:    E(v, h) = ||v - b||² / 2 - c·h - hᵀ W v     v real: standardize the data

    and p(v, h) = exp(-E(v, h)) / Z. So P(h = 1 | v) = σ(c + W v), and P(v = 1 | h) = σ(b + Wᵀ h) or v | h ~
    N(b + Wᵀ h, 1). Rows are (n, n_visible) or (n, n_hidden) float32 on the device of the parameters; a result is new
    memory, and the energies take as much again as the hidden units of the rows.

    Raises ConfigError for visible units of no known kind.
    """

    def __init__(
        self, n_visible: int, n_hidden: int, visible: Visible = "bernoulli", device: torch.device | str = "cpu"
    ):
        named("visible", visible, VISIBLE)
        self.n_visible, self.n_hidden, self.binary = n_visible, n_hidden, visible == "bernoulli"
        self.parameters = Parameters(
            {"weight": (n_hidden, n_visible)}, {"hidden_bias": (n_hidden,), "visible_bias": (n_visible,)}, device
        )

    @property
    def device(self) -> torch.device:
        return self.parameters.device

    def initialise(self, mean: Tensor, random: torch.Generator) -> None:
        """Small weights, hidden biases 0, and visible biases that give the units their mean without hidden ones.

        ``mean`` (n_visible,) is that of the rows. For binary units it is kept between 0.01 and 0.99, else a unit that
        is never on in these rows could hardly learn to be (Hinton 2012, section 8). ``random`` is a generator on the
        CPU.
        """
        values = self.parameters.values
        fill(values["weight"], "normal", random)
        values["hidden_bias"].zero_()
        values["visible_bias"].copy_(torch.logit(mean, eps=LEAST_MEAN) if self.binary else mean)

    def hidden(self, visible: Tensor) -> Tensor:
        """P(h = 1 | v), (n, n_hidden)."""
        return self._drive(visible).sigmoid_()

    def visible(self, hidden: Tensor) -> Tensor:
        """P(v = 1 | h), or the mean of v given h, (n, n_visible)."""
        values = self.parameters.values
        means = torch.addmm(values["visible_bias"], hidden, values["weight"])
        return means.sigmoid_() if self.binary else means

    def energy(self, visible: Tensor, hidden: Tensor) -> Tensor:
        """E(v, h) of pairs of rows, (n,)."""
        return self._alone(visible) - (self._drive(visible) * hidden).sum(1)

    def free_energy(self, visible: Tensor) -> Tensor:
        """F(v) = -log Σₕ exp(-E(v, h)), (n,): log p(v) is -F(v) - log Z."""
        return self._free(visible, self._drive(visible))

    def pseudo_likelihood(self, visible: Tensor, units: Tensor) -> Tensor:
        """n_visible · log P(vᵢ | all other visible units), (n,), for i = ``units`` (n,) int64, another one each row.

        With i uniform this estimates Σᵢ log P(vᵢ | others), the log-pseudo-likelihood (Besag 1975), without bias; the
        same as ``score_samples`` of scikit-learn's BernoulliRBM. Binary visible units only.
        """
        return self._pseudo(visible, self._drive(visible), units)

    def gibbs(self, visible: Tensor, steps: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Visible rows after so many steps of Gibbs sampling, and the hidden ones that they were sampled from.

        Each step samples the hidden units given the visible ones, then the visible given the hidden. One step or more.
        """
        sampler = Sampler(random)
        for _ in range(max(steps, 1)):
            hidden = self.hidden(visible)
            sampler.binary(hidden, out=hidden)
            visible = self.sample_visible(self.visible(hidden), sampler)
        return visible, hidden

    def sample(self, n: int, steps: int, random: torch.Generator, means: bool = True) -> Tensor:
        """``n`` rows of the model, (n, n_visible): so many Gibbs steps from hidden units that are each 1 half the time.

        ``means``: of the last step the probabilities or means of the visible units, which show more than a sample does.
        """
        hidden = torch.full((n, self.n_hidden), 0.5, device=self.device)
        sampler = Sampler(random)
        start = self.visible(sampler.binary(hidden, out=hidden))
        visible, hidden = self.gibbs(self.sample_visible(start, sampler), steps, random)
        return self.visible(hidden) if means else visible

    def sample_visible(self, means: Tensor, sampler: Sampler) -> Tensor:
        """Samples of the visible units in place of their probabilities or means."""
        return sampler.binary(means, out=means) if self.binary else sampler.gaussian(means, out=means)

    def _drive(self, visible: Tensor) -> Tensor:
        """What drives the hidden units, c + W v, (n, n_hidden)."""
        values = self.parameters.values
        return torch.addmm(values["hidden_bias"], visible, values["weight"].t())

    def _alone(self, visible: Tensor) -> Tensor:
        """The energy without hidden units, (n,)."""
        bias = self.parameters.values["visible_bias"]
        return -(visible @ bias) if self.binary else (visible - bias).square_().sum(1).div_(2)

    def _free(self, visible: Tensor, drive: Tensor) -> Tensor:
        return self._alone(visible) - softplus(drive).sum(1)

    def _pseudo(self, visible: Tensor, drive: Tensor, units: Tensor) -> Tensor:
        values = self.parameters.values
        change = 1 - 2 * visible.gather(1, units[:, None])  # (n, 1), of the unit that is flipped
        flipped = values["weight"].t()[units].mul_(change).add_(drive)
        more = softplus(flipped).sub_(softplus(drive)).sum(1)
        rise = -change[:, 0] * values["visible_bias"][units] - more  # of the free energy
        return softplus(-rise).mul_(-self.n_visible)
