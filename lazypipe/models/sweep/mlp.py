"""A network of one hidden layer by stochastic gradient descent, one strength after another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lazypipe.models.sweep import layer, minibatches
from lazypipe.models.sweep.fitted import Fitted, Options, Outcome
from lazypipe.models.sweep.layer import Layer
from lazypipe.models.sweep.minibatch_kernel import activate, silence
from lazypipe.models.sweep.minibatches import Batch, Descent, Errors, errors_of
from lazypipe.models.sweep.planes import n_outputs_of
from lazypipe.models.sweep.rows import Prefix
from lazypipe.stats import softmax_kernel


class Network:
    """``max(x hidden.T + bias, 0) output + bias``, of weights ``hidden`` (H, D) and ``output`` (H, outputs).

    They start as He's: normal, of variance 2 / inputs. (He et al., "Delving deep into rectifiers", ICCV 2015.)
    What passes through the units, of ``n_rows`` rows at most, lies unit by unit: products are fastest so, the whole
    step at 85% of the rate of a large one.
    """

    def __init__(self, n_features: int, n_hidden: int, n_outputs: int, n_rows: int, random: np.random.Generator):
        self.hidden = Layer(_normal(n_features, (n_hidden, n_features), random))
        self.output = Layer(_normal(n_hidden, (n_hidden, n_outputs), random))
        self.hidden_bias, self.bias = np.zeros(n_hidden, np.float32), np.zeros(n_outputs, np.float32)
        self._active, self._errors = np.empty((2, n_hidden * n_rows), np.float32)

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """(n, outputs), without bias."""
        active = self._units(self._active, len(rows))
        np.matmul(self.hidden.weights, rows.T, out=active)
        activate(active, self.hidden_bias)
        return np.ascontiguousarray((self.output.weights.T @ active).T)

    def errors(self, rows: np.ndarray, targets: np.ndarray) -> Errors:
        return errors_of(self.logits(rows), self.bias, targets, len(self.bias))

    def descend(self, batch: Batch, errors: Errors, penalty: float) -> None:
        """A step of all weights, from the ``errors`` of the same batch just found."""
        n, rate = len(batch.rows), np.float32(batch.rate)
        active, hidden = self._units(self._active, n), self._units(self._errors, n)
        np.matmul(self.output.weights, errors.of_rows.T, out=hidden)
        sums = np.empty_like(self.hidden_bias)
        silence(hidden, active, sums)
        self.hidden_bias -= rate * sums
        self.bias -= rate * errors.sums.astype(np.float32)
        self.output.step(batch, active, errors.of_rows, penalty)
        self.hidden.step(batch, hidden, batch.rows, penalty)

    def penalty(self, penalty: float) -> float:
        """What the objective is beside the mean loss."""
        return penalty / 2 * float(self.hidden.squares().sum() + self.output.squares().sum())

    def decide(self, rows: np.ndarray) -> np.ndarray:
        """The class (n,) of rows (n, D)."""
        classes = np.empty((len(rows), 1), np.int32)
        for part in minibatches.parts(len(rows)):
            softmax_kernel.decide(self.logits(rows[part]), self.bias, len(self.bias), classes[part])
        return classes[:, 0]

    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.hidden.weights, self.hidden_bias, self.output.weights, self.bias

    def _units(self, memory: np.ndarray, n: int) -> np.ndarray:
        n_hidden = len(self.hidden_bias)
        return memory[: n_hidden * n].reshape(n_hidden, n)


def _normal(n_inputs: int, shape: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    weights = random.standard_normal(shape, np.float32)
    weights *= np.float32(np.sqrt(2 / n_inputs))
    return weights


def fit(
    prefix: Prefix, targets: np.ndarray, n_classes: int, strengths: Sequence[float], options: Options, seed: int
) -> Fitted:
    """Fit ``options.hidden`` rectified units and a softmax (or a sigmoid of two classes), a strength at a time.

    Descends on cross-entropy + (‖W₁‖² + ‖W₂‖²) / (2 C size). Every strength starts from the same weights and takes
    the same batches, so that what differs between them is the strength. ``minibatches`` says which steps, and
    what counts as converged; ``gap`` is unknown. Passes of each: the epochs, and one for the exact objective.
    """
    networks, outcomes = [], []
    n_outputs, n_rows = n_outputs_of(n_classes), _rows_at_once(options)
    for strength in strengths:
        random = np.random.default_rng([seed, 1])  # [seed] alone is of the batches
        network = Network(prefix.n_features, options.hidden, n_outputs, n_rows, random)
        descent = Descent(prefix, targets, options, seed, 1)
        outcomes += _train(network, descent, strength, n_classes)
        networks.append(network)
    return Fitted(outcomes, lambda rows: np.stack([network.decide(rows) for network in networks], axis=1))


def _train(network: Network, descent: Descent, strength: float, n_classes: int) -> list[Outcome]:
    penalty = 1 / (strength * descent.prefix.size)
    start = np.log(n_classes) + network.penalty(penalty)
    with np.errstate(over="ignore", invalid="ignore"):
        for batch in descent.batches():
            errors = network.errors(batch.rows, batch.targets)
            network.descend(batch, errors, penalty)
            descent.record(batch, errors.losses)
        objectives = descent.mean_losses(network.errors) + network.penalty(penalty)
        outcomes = descent.outcomes([strength], objectives, start)
    if not descent.alive[0]:
        for array in network.arrays():
            array[:] = 0
    return outcomes


def _rows_at_once(options: Options) -> int:
    return max(options.batch_size, minibatches.PART_ROWS)


def nbytes(size: int, n_features: int, n_classes: int, n_strengths: int, options: Options) -> int:
    """Bytes at most: of the descent, and of the networks of all strengths with what passes through their units."""
    n_outputs, n_rows = n_outputs_of(n_classes), _rows_at_once(options)
    layers = layer.nbytes(options.hidden, n_features) + layer.nbytes(options.hidden, n_outputs)
    network = layers + 8 * options.hidden * (n_rows + 1)
    return minibatches.nbytes(size, n_features, options) + n_strengths * network + 16 * n_outputs * n_rows
