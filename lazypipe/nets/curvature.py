"""The experimental term of the update Δw = -α ∂E/∂w - β (∂y/∂w)(∂²y/∂w²): gradient times curvature of the output.

Here y(w) is the output of a network summed over its outputs and averaged over the rows of a batch, and the term is
the elementwise product of y's gradient and of the diagonal of its Hessian. For one row and one output this is the
formula as it is written; for several, it is of the mean of y, not the mean of each row's own term.

Where it is 0, and the rule is gradient descent (of an estimate, the mean is 0: what it adds is noise):

- With relu the output is piecewise linear in every single weight while the others stay, so the diagonal of its Hessian
  is 0 wherever it is defined. Choose tanh or sigmoid.
- In weights that y is linear in, which are those of the last layer if the output is linear.
- If y is a softmax, whose outputs sum to 1: give the function before it (the logits).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.func import grad, jvp, vmap

from lazypipe.errors import ConfigError

Outputs = Callable[[Tensor, Tensor], Tensor]  # (vector (P,), rows (n, D)) -> (n, outputs)

EXACT_LIMIT = 2_000  # parameters
COLUMNS = 64  # of the Hessian at once


def curvature_term(
    function: Outputs, vector: Tensor, rows: Tensor, random: Generator | None, exact: bool, n_probes: int = 1
) -> Tensor:
    """(∂y/∂w)(∂²y/∂w²) at w = ``vector`` (P,) for ``rows`` (n, D), a new tensor (P,).

    β / α of it, added to the gradient of the loss, makes a plain step with rate α the update above.
    ``function(vector, rows)`` is (n, outputs), differentiable twice, and treats rows apart. ``exact`` takes P
    Hessian-vector products, 64 at once (and the room of 64 passes); ConfigError beyond 2,000 parameters.
    Otherwise ``n_probes`` of them estimate the diagonal without bias, with random numbers of ``random``, a generator on
    the device of ``vector``: about the time of 1 + 1.5 n_probes gradients, and room for 5 vectors (P,) and 7 times
    the values of the hidden units.
    """

    def y(weights: Tensor) -> Tensor:
        return function(weights, rows).sum() / len(rows)

    if exact:
        return grad(y)(vector.detach()) * hessian_diagonal(y, vector)
    return _estimate(y, vector, random, n_probes)


def hessian_diagonal(y: Callable[[Tensor], Tensor], vector: Tensor) -> Tensor:
    """The diagonal (P,) of the Hessian of a scalar y at ``vector``, forward over reverse, some columns at a time."""
    size = len(vector)
    if size > EXACT_LIMIT:
        raise ConfigError(
            f"curvature: the exact diagonal is for {EXACT_LIMIT:,} parameters at most, here are {size:,}. "
            "Take the estimate, or a smaller network."
        )
    vector = vector.detach()
    slope = grad(y)

    def entry(index: Tensor) -> Tensor:
        direction = (torch.arange(size, device=vector.device) == index).to(vector.dtype)
        return jvp(slope, (vector,), (direction,))[1].dot(direction)

    return vmap(entry, chunk_size=COLUMNS)(torch.arange(size, device=vector.device))


def _estimate(y: Callable[[Tensor], Tensor], vector: Tensor, random: Generator | None, n_probes: int) -> Tensor:
    """Gradient times the mean of z * (H z) over random signs z.

    Its expectation is the diagonal of H, and its variance for one probe in row i the sum of H_ij² over j ≠ i
    (Bekas, Kokiopoulou & Saad 2007, Appl. Numer. Math. 57; one probe a step in AdaHessian, Yao et al. 2021, AAAI).
    The gradient's graph is made once for all probes: half the time of as many passes forward over reverse at 4 probes.
    """
    if n_probes < 1:
        raise ConfigError(f"curvature: {n_probes} probes. Give 1 or more.")
    weights = vector.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(y(weights), weights, create_graph=True)
    total = torch.zeros_like(vector)
    if not gradient.requires_grad:  # y is linear in all weights
        return total
    for probe in range(n_probes):
        signs = torch.randint(0, 2, vector.shape, generator=random, dtype=vector.dtype, device=vector.device)
        signs.mul_(2).sub_(1)
        last = probe == n_probes - 1  # lets the graph go
        (product,) = torch.autograd.grad(gradient, weights, signs, retain_graph=not last, materialize_grads=True)
        total.addcmul_(product, signs, value=1 / n_probes)
        del product, signs  # before the next ones are made
    return total.mul_(gradient.detach())
