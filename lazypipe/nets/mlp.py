"""Multilayer perceptrons, as people call them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazypipe.checks import from_0, named
from lazypipe.engines import Engine, engine_or_own
from lazypipe.errors import ConfigError, DataError, require_fitted
from lazypipe.io import open_matrix
from lazypipe.io.examples import Examples, examples_of, others_of
from lazypipe.nets.activations import ACTIVATIONS
from lazypipe.nets.applying import Function, applied, matched, memory_of
from lazypipe.nets.checkpoints import checked_state, forget, load_tensors, save_tensors
from lazypipe.nets.fitting import Fit, FitNetwork, fit_memory
from lazypipe.nets.initial import initial_for
from lazypipe.nets.network import LOSSES, Shape, network_of, units_of, vector_of
from lazypipe.nets.options import Options, options_of
from lazypipe.nets.placing import budget_of, carried_out, plan_training
from lazypipe.plan import Plan
from lazypipe.stores import AnyPath, path_of

ENOUGH_ROWS = 10  # a parameter, by the rule of thumb
REMEDY = "Give the file of a network that lazypipe saved."


class MLP:
    """A multilayer perceptron: layers of units, trained by backpropagation on blocks of rows.

    Minimises the mean loss of the rows plus l2 ‖W‖² / 2 over all weights; biases are not penalised.

    Parameters
    ----------
    hidden : units of each hidden layer, inputs first; () is softmax or linear regression.
    activation : of the hidden units: "relu", "tanh" or "sigmoid".
    loss : "cross_entropy" sorts into classes (softmax); "squared_error" predicts numbers (linear, half the squares).
    l2, dropout, input_dropout : penalty of the weights; shares of hidden units and of inputs left out of a step.
    initial : weights to start from: "auto" ("he" for relu, else "xavier"), "xavier", "xavier_normal", "he",
        "he_uniform", "lecun", "normal" (of deviation 0.01), or "zeros" (where there is no hidden layer).
    optimizer : "gradient_descent", "momentum", "nesterov", "adagrad", "rmsprop", "adam"; or "curvature", an
        experiment: Δw = -α ∂E/∂w - β (∂y/∂w)(∂²y/∂w²), with β ``curvature``.
    learning_rate : None takes the optimizer's usual one. ``momentum`` is of "momentum" and "nesterov".
    schedule : of the learning rate: "constant", "linear", "cosine", "step", "inverse", after a ``warmup`` share.
    clip_norm : largest norm of a step's gradient.
    epochs, batch_size : readings of all rows, and rows a step; None takes all rows in a step.
    patience : end after so many epochs that validate no better than the best.
    keep : "best", the epoch that validated best (highest accuracy, or lowest loss; the last without validation
        rows), or "last".
    divide_by : divides all entries, as 255 does pixels.
    seed : of weights, order of rows and dropout.
    device : "auto" (a GPU where there is one), "cpu" or "cuda".
    precision : of products: "float32", or "bfloat16" (parameters and sums stay float32). ``matmul_precision`` is
        torch's for float32: "highest", "high" or "medium".
    threads : of a training on processors; None takes every core.
    processes : that share each batch, on this machine, or on as many workers; one that is missing for ``timeout``
        seconds ends the training.
    checkpoint_steps : steps between checkpoints, beside those at the end of every epoch.

    Attributes (after ``fit``)
    --------------------------
    coefs_, intercepts_ : lists of (inputs, outputs) and (outputs,) arrays, float32.
    classes_ : (K,) sorted, of a classifier.
    history_ : a dict an epoch: train_loss, train_accuracy, validation_..., samples_per_second, waiting, seconds.
    n_steps_, best_epoch_, stopped_early_ : steps taken; the epoch that validated best, None without validation rows;
        whether patience ended the training.
    notes_, device_, plan_ : what happened on the way; what computed, in words; what was planned.
    samples_per_parameter_ : the rule of thumb asks for ten.

    Notes
    -----
    One pass over the rows an epoch. Rows that the budget holds are read once and stay on the device; others are
    streamed through a shuffle buffer while the device computes. Memory: about 11 vectors of the parameters with
    Adam, 8 bytes a unit and row of a batch, and the rows that the budget leaves room for.
    (Rumelhart, Hinton and Williams, Nature 1986.)
    """

    def __init__(
        self,
        hidden: Sequence[int] = (1024,),
        *,
        activation: str = "relu",
        loss: str = "cross_entropy",
        l2: float = 0.0,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        initial: str = "auto",
        optimizer: str = "adam",
        learning_rate: float | None = None,
        momentum: float = 0.9,
        schedule: str = "constant",
        warmup: float = 0.0,
        clip_norm: float | None = None,
        curvature: float = 0.01,
        epochs: int = 20,
        batch_size: int | None = 128,
        patience: int | None = None,
        keep: str = "best",
        divide_by: float = 1.0,
        seed: int = 0,
        device: str = "auto",
        precision: str = "float32",
        matmul_precision: str = "highest",
        threads: int | None = None,
        processes: int = 1,
        timeout: float = 300.0,
        checkpoint_steps: int | None = None,
    ):
        self.hidden, self.activation, self.loss, self.initial = hidden, activation, loss, initial
        self.dropout, self.input_dropout, self.l2 = dropout, input_dropout, l2
        self.optimizer, self.learning_rate, self.momentum = optimizer, learning_rate, momentum
        self.schedule, self.warmup, self.clip_norm, self.curvature = schedule, warmup, clip_norm, curvature
        self.epochs, self.batch_size, self.patience, self.keep = epochs, batch_size, patience, keep
        self.divide_by, self.seed, self.device = divide_by, seed, device
        self.precision, self.matmul_precision, self.threads = precision, matmul_precision, threads
        self.processes, self.timeout, self.checkpoint_steps = processes, timeout, checkpoint_steps

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        validation: tuple[Any, Any] | None = None,
        engine: Engine | None = None,
        state: str | Path | None = None,
        restart: bool = False,
    ) -> MLP:
        """Train on rows X (n, D) and their targets y (n,): sources, paths or arrays.

        ``validation`` (X, y) is judged after every epoch. ``state`` is a folder for checkpoints: after a kill, the
        same call goes on from the last one, in the middle of an epoch too, and on processors ends with the same
        bits; ``restart`` forgets it first. ``engine`` None trains in this process.

        Raises ConfigError and DataError for what cannot be, before anything is read; MemoryPlanError;
        DivergedError at the step whose loss is not finite; EngineError for a GPU or a worker that is missing.
        """
        work, classes = self._work(X, y, validation, state, restart)
        with engine_or_own(engine) as running:
            plan = self._plan(work, running)
            forget(work.state, restart)
            fit: Fit = carried_out(replace(work, memory=budget_of(work.options, running)), running, plan.folds[0])
        return self._take(work.shape, classes, fit, work.train.n_rows, plan)

    def predict(self, X: Any) -> np.ndarray:
        """The class, or the number, of every row (n,); X is streamed."""
        require_fitted(self, "coefs_")
        if self.loss == "cross_entropy":
            return np.asarray(self.classes_[self._likeliest(X)])
        return self._outputs(X)[:, 0]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probabilities (n, K) of the classes, float32."""
        require_fitted(self, "coefs_")
        if self.loss != "cross_entropy":
            raise ConfigError(f"predict_proba: there are no classes where the loss is {self.loss}. Call predict.")
        said = self._outputs(X)
        said -= said.max(axis=1, keepdims=True)
        np.exp(said, out=said)
        said /= said.sum(axis=1, keepdims=True)
        return said

    def score(self, X: Any, y: Any) -> float:
        """Accuracy; of a regression R²."""
        require_fitted(self, "coefs_")
        train = Examples(open_matrix(X), np.empty(0), self._divide_by)
        examples = others_of((X, y), train, getattr(self, "classes_", None))
        if self.loss == "cross_entropy":
            return float((self._likeliest(X) == examples.targets).mean())
        said = self._outputs(X)
        squares = ((examples.targets - examples.targets.mean()) ** 2).sum()
        return float(1 - ((examples.targets - said[:, 0]) ** 2).sum() / squares)

    def confusion(self, X: Any, y: Any) -> np.ndarray:
        """Rows of each class by the class that is predicted (K, K), int64, of a classifier; X is streamed."""
        require_fitted(self, "coefs_")
        if self.loss != "cross_entropy":
            raise ConfigError(f"confusion: there are no classes where the loss is {self.loss}. Call score.")
        examples = others_of((X, y), Examples(open_matrix(X), np.empty(0), self._divide_by), self.classes_)
        n = len(self.classes_)
        pairs = examples.targets.astype(np.int64) * n + self._likeliest(X)
        return np.bincount(pairs, minlength=n * n).reshape(n, n)

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the network as one safetensors file, whole; ``MLP.load`` reads it."""
        require_fitted(self, "coefs_")
        classes = None if self.loss != "cross_entropy" else self.classes_.tolist()
        header = {
            "network": {"units": self.shape_.units, "activation": self.activation, "loss": self.loss},
            "classes": classes,
            "divide_by": self._divide_by,
        }
        save_tensors(path_of(path), header, network_of(self.shape_, self._vector).parameters.values, overwrite)

    @classmethod
    def load(cls, path: str | AnyPath) -> MLP:
        """A fitted network from the file that ``save`` wrote. DataError for any other."""
        place = path_of(path)
        header, tensors = load_tensors(place, REMEDY)
        found = header.get("network", {})
        if found.get("loss") not in LOSSES:
            raise DataError(f"{place}: is no network with outputs (a stack, a machine or a checkpoint). {REMEDY}")
        shape = Shape(tuple(found["units"]), found["activation"], found["loss"])
        model = cls(shape.units[1:-1], activation=shape.activation, loss=shape.loss, divide_by=header["divide_by"])
        classes = None if header["classes"] is None else np.array(header["classes"])
        return model._filled(shape, classes, vector_of(shape, tensors))

    def _work(
        self, X: Any, y: Any, validation: Any, state: str | Path | None, restart: bool
    ) -> tuple[FitNetwork, np.ndarray | None]:
        """What is to be trained, checked; ``memory`` is not known yet."""
        options = self._options()
        named("loss", self.loss, LOSSES)
        named("activation", self.activation, ACTIVATIONS)
        if options.optimizer == "curvature" and self.activation == "relu":
            raise ConfigError(
                "curvature: an output through relu has no second derivative in a single weight. Give activation='tanh' "
                "or 'sigmoid'."
            )
        if self.loss == "binary_cross_entropy":
            raise ConfigError("loss: binary_cross_entropy is of autoencoders. Give cross_entropy, or squared_error.")
        initial_for(self.initial, self.activation)
        place = checked_state(state, restart)
        hidden = units_of(self.hidden)
        train, classes = examples_of((X, y), options.divide_by, self.loss != "cross_entropy")
        others = None if validation is None else others_of(validation, train, classes)
        options.require_validation(others is not None)
        shape = Shape((train.n_features, *hidden, 1 if classes is None else len(classes)), self.activation, self.loss)
        work = FitNetwork(
            shape,
            options,
            train,
            others,
            memory=0,
            initial=self.initial,
            dropout=from_0(self.dropout, "dropout", below=1.0),
            input_dropout=from_0(self.input_dropout, "input_dropout", below=1.0),
            state=place,
        )
        return work, classes

    def _options(self) -> Options:
        return options_of(vars(self))

    def _plan(self, work: FitNetwork, engine: Engine) -> Plan:
        n, n_parameters = work.train.n_rows, work.shape.n_parameters
        return plan_training(
            "mlp",
            work.train.matrix,
            engine,
            work.options,
            nbytes=lambda memory: fit_memory(work, memory),
            block_rows=work.options.batch_size or n,
            result_nbytes=4 * n_parameters,
            passes=work.options.epochs,
            notes=(network_note(work.shape), rule_of_thumb(n, n_parameters)),
        )

    def _take(self, shape: Shape, classes: np.ndarray | None, fit: Fit, n_rows: int, plan: Plan) -> MLP:
        self._filled(shape, classes, fit.parameters)
        self.history_, self.n_steps_, self.best_epoch_ = fit.history, fit.n_steps, fit.best_epoch
        self.stopped_early_, self.notes_, self.device_ = fit.stopped_early, list(fit.notes), fit.device
        self.samples_per_parameter_ = n_rows / shape.n_parameters
        self.plan_ = plan
        return self

    def _filled(self, shape: Shape, classes: np.ndarray | None, vector: np.ndarray) -> MLP:
        """Fitted, with the parameters (P,) as they lie in a network."""
        self.shape_, self._vector = shape, vector
        values = network_of(shape, vector).parameters.values
        self.coefs_ = [values[f"weight.{i}"].numpy().T for i in range(shape.n_layers)]
        self.intercepts_ = [values[f"bias.{i}"].numpy() for i in range(shape.n_layers)]
        if classes is not None:
            self.classes_ = classes
        return self

    @property
    def _divide_by(self) -> float:
        return float(self.divide_by)

    def _likeliest(self, X: Any) -> np.ndarray:
        """The place (n,) among the classes of each row's likeliest one."""
        return self._said(X, lambda said: said.argmax(1, keepdim=True).float(), 1)[:, 0].astype(np.int64)

    def _outputs(self, X: Any) -> np.ndarray:
        """What the network says of every row (n, outputs), before a softmax; float32."""
        return self._said(X, lambda said: said, self.shape_.units[-1])

    def _said(self, X: Any, function: Callable[[Tensor], Tensor], n_outputs: int) -> np.ndarray:
        """A function of what the network says of every row, (n, n_outputs)."""
        require_fitted(self, "coefs_")
        matrix = matched(X, self.shape_.units[0], "network")

        def make(device: torch.device) -> Function:
            network = network_of(self.shape_, self._vector, device)
            return lambda rows: function(network.outputs(rows))

        said = applied(make, matrix, n_outputs, self.shape_.n_alive, self._options(), memory=memory_of(self))
        assert isinstance(said, np.ndarray)
        return said


def plan_mlp(
    X: Any, y: Any, model: MLP, *, validation: tuple[Any, Any] | None = None, engine: Engine | None = None
) -> Plan:
    """What ``model.fit`` would take; reads labels and metadata, no rows."""
    work, _ = model._work(X, y, validation, None, False)
    with engine_or_own(engine) as running:
        return model._plan(work, running)


def network_note(shape: Shape) -> str:
    return f"network {shape}, {shape.activation}, {shape.loss}: {shape.n_parameters:,} parameters"


def rule_of_thumb(n_rows: int, n_parameters: int) -> str:
    """In words: the ten rows a parameter that people ask for."""
    wanted = ENOUGH_ROWS * n_parameters
    told = f"{n_rows / n_parameters:.3g} rows a parameter; the rule of thumb asks for {ENOUGH_ROWS}"
    if n_rows >= wanted:
        return told
    return f"{told} ({wanted:,} rows): mind overfitting (l2, dropout, patience), or give fewer units"
