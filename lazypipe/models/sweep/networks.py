"""Networks by stochastic gradient descent, one strength after another: what ``mlp``, ``deep`` and ``dbn`` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lazypipe.models.sweep import minibatches
from lazypipe.models.sweep.fitted import Fitted, Options, Outcome
from lazypipe.models.sweep.minibatches import Descent
from lazypipe.models.sweep.planes import n_outputs_of
from lazypipe.models.sweep.rows import Prefix
from lazypipe.nets.arrays import ArrayNetwork, array_network_nbytes, one_core
from lazypipe.nets.network import Shape

Start = Callable[[ArrayNetwork], None]  # writes the parameters that training starts from


def fit(
    prefix: Prefix,
    targets: np.ndarray,
    n_classes: int,
    strengths: Sequence[float],
    options: Options,
    seed: int,
    *,
    hidden: tuple[int, ...],
    activation: str,
    momentum: float,
    start: Start,
) -> Fitted:
    """Fit units in ``hidden`` layers and a softmax (or a sigmoid of two classes), a strength at a time.

    Descends on cross-entropy + Σ‖W‖² / (2 C size) over all layers. Every strength starts from the same weights and
    takes the same batches, so that what differs between them is the strength. ``minibatches`` says which steps, and
    what counts as converged; ``gap`` is unknown. Passes of each: the epochs, and one for the exact objective.
    """
    units = (prefix.n_features, *hidden, n_outputs_of(n_classes))
    network = ArrayNetwork(units, activation, _rows_at_once(options), momentum)
    outcomes, vectors = [], []
    with one_core():
        for strength in strengths:
            start(network)
            descent = Descent(prefix, targets, options, seed, 1)
            outcomes += _train(network, descent, strength, n_classes)
            vectors.append(network.vector.copy())

    def decide(rows: np.ndarray) -> np.ndarray:
        classes = np.empty((len(rows), len(vectors)), np.int32)
        with one_core():
            for i, vector in enumerate(vectors):
                network.vector[:] = vector
                for part in minibatches.parts(len(rows)):
                    classes[part, i] = network.decide(rows[part])
        return classes

    return Fitted(outcomes, decide)


def _train(network: ArrayNetwork, descent: Descent, strength: float, n_classes: int) -> list[Outcome]:
    """From the parameters that the network has; those that diverge end as 0."""
    penalty = 1 / (strength * descent.prefix.size)
    start = np.log(n_classes) + penalty / 2 * network.squares()
    with np.errstate(over="ignore", invalid="ignore"):
        for batch in descent.batches():
            loss = network.backpropagate(batch.rows, batch.targets)
            network.step(batch.rate, len(batch.rows) * penalty)
            descent.record(batch, np.array([loss]))
        objectives = descent.mean_losses(network.loss) + penalty / 2 * network.squares()
        outcomes = descent.outcomes([strength], objectives, start)
    if not descent.alive[0]:
        network.vector[:] = 0
    return outcomes


def _rows_at_once(options: Options) -> int:
    return max(options.batch_size, minibatches.PART_ROWS)


def nbytes(
    size: int,
    n_features: int,
    n_classes: int,
    n_strengths: int,
    options: Options,
    *,
    hidden: tuple[int, ...],
    momentum: float,
) -> int:
    """Bytes at most: of the descent, a network with what passes through its units, and parameters of all strengths."""
    units = (n_features, *hidden, n_outputs_of(n_classes))
    n_rows = _rows_at_once(options)
    vectors = 4 * n_strengths * Shape(units, "", "").n_parameters
    said = 16 * units[-1] * n_rows
    return (
        minibatches.nbytes(size, n_features, options) + array_network_nbytes(units, n_rows, momentum) + vectors + said
    )
