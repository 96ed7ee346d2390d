"""Autoencoders: a pre-trained stack unrolled, and trained to give back the rows that it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lazypipe.checks import from_0
from lazypipe.engines import Engine, engine_or_own
from lazypipe.errors import ConfigError, DataError, require_fitted
from lazypipe.io import open_matrix
from lazypipe.io.examples import Examples
from lazypipe.nets.applying import Function, applied, matched, memory_of
from lazypipe.nets.belief import FitBelief
from lazypipe.nets.checkpoints import checked_state, load_tensors, save_tensors
from lazypipe.nets.dbn import Pretrained, options_of_part, plan_belief
from lazypipe.nets.fitting import FitNetwork
from lazypipe.nets.network import Network, Shape, network_of, units_of, vector_of
from lazypipe.nets.stack import Stack
from lazypipe.stores import AnyPath, path_of

FIXED: dict[str, Any] = {"activation": "sigmoid", "initial": "xavier", "loss": "cross_entropy"}  # nobody's choice
REMEDY = "Give the file of an autoencoder that lazypipe saved."


class Autoencoder(Pretrained):
    """An autoencoder: the layers of a stack up to a few linear codes, and down again.

    Minimises the cross-entropy of each entry (of Bernoulli visible units, entries in [0, 1]) or half the squared error
    (of Gaussian ones).

    Parameters
    ----------
    hidden : units of each layer up to the codes, which are the last; down again there are the same.
    Others : as of ``DBN``.

    Attributes (after ``fit``)
    --------------------------
    stack_, history_, n_steps_, notes_ : as of ``DBN``. n_components_ : codes.

    Notes
    -----
    The code layer is linear: it starts from its machine's weights by the tangent of the sigmoid.
    (Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science 2006.)
    """

    FINE_TUNING: ClassVar[dict[str, Any]] = {
        "optimizer": "adam",
        "learning_rate": 0.002,
        "schedule": "linear",
        "epochs": 30,
    }

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        validation: Any = None,
        stack: Stack | str | Path | None = None,
        pretrain: bool = True,
        engine: Engine | None = None,
        state: str | Path | None = None,
        restart: bool = False,
    ) -> Autoencoder:
        """Train on the rows of X (n, D); ``y`` is not used. Options and errors are those of ``DBN.fit``."""
        work = self._work(X, validation, stack, pretrain, state, restart)
        with engine_or_own(engine) as running:
            plan = plan_belief("autoencoder", work, running, ())
            fit = self._train(work, running, plan, restart)
        self.shape_, self._vector = work.network.shape, fit.parameters
        self.n_components_ = self.shape_.units[self._code]
        return self

    def transform(self, X: Any, out: str | Path | None = None, overwrite: bool = False) -> np.ndarray | AnyPath:
        """The codes (n, n_components) of every row, float32; written to ``out`` (.npy, .zarr, .parquet) if given."""
        require_fitted(self, "shape_")
        return self._applied(X, lambda network, rows: network.codes(rows), self.n_components_, out, overwrite)

    def inverse_transform(self, codes: np.ndarray) -> np.ndarray:
        """Rows (n, D) of codes (n, n_components) in memory, in the units of X."""
        require_fitted(self, "shape_")
        given = np.asarray(codes, np.float32)
        if given.ndim != 2 or given.shape[1] != self.n_components_:
            raise DataError(f"codes: have shape {given.shape}. Give (n, {self.n_components_}).")
        network = network_of(self.shape_, self._vector)
        return self._back(network.after(torch.from_numpy(given), self._code)).numpy()

    def reconstruct(self, X: Any, out: str | Path | None = None, overwrite: bool = False) -> np.ndarray | AnyPath:
        """Every row as the codes give it back, (n, D), in the units of X."""
        require_fitted(self, "shape_")

        def there_and_back(network: Network, rows: Tensor) -> Tensor:
            return self._back(network.outputs(rows))

        return self._applied(X, there_and_back, self.shape_.units[0], out, overwrite)

    def reconstruction_error(self, X: Any) -> float:
        """The mean squared error of an entry, of entries as they are divided by ``divide_by``."""
        require_fitted(self, "shape_")
        divide_by = float(self.divide_by)

        def errors(network: Network, rows: Tensor) -> Tensor:
            return (self._back(network.outputs(rows)) / divide_by - rows).square_().mean(1, keepdim=True)

        found = self._applied(X, errors, 1, None, False)
        assert isinstance(found, np.ndarray)
        return float(found.mean(dtype=np.float64))

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the autoencoder as one safetensors file, whole; ``Autoencoder.load`` reads it."""
        require_fitted(self, "shape_")
        header = {"autoencoder": self.shape_._asdict(), "divide_by": float(self.divide_by)}
        save_tensors(path_of(path), header, network_of(self.shape_, self._vector).parameters.values, overwrite)

    @classmethod
    def load(cls, path: str | AnyPath) -> Autoencoder:
        """A fitted autoencoder from the file that ``save`` wrote. DataError for any other."""
        place = path_of(path)
        header, tensors = load_tensors(place, REMEDY)
        if "autoencoder" not in header:
            raise DataError(f"{place}: is no autoencoder. {REMEDY}")
        found = header["autoencoder"]
        shape = Shape(tuple(found["units"]), found["activation"], found["loss"], found["code"])
        model = cls(shape.units[1 : found["code"] + 1], divide_by=header["divide_by"])
        model.shape_, model._vector = shape, vector_of(shape, tensors)
        model.n_components_ = shape.units[found["code"]]
        return model

    def _work(
        self, X: Any, validation: Any, stack: Any, pretrain: bool, state: str | Path | None, restart: bool
    ) -> FitBelief:
        matrix, hidden = open_matrix(X), units_of(self.hidden)
        if not hidden:
            raise ConfigError("hidden: an autoencoder has one layer at least, that of its codes. Give its units.")
        binary = self._machines().visible == "bernoulli"
        loss = "binary_cross_entropy" if binary else "squared_error"
        before, given = self._start(X, stack, pretrain, validation, state, restart)
        network = self._network(hidden=hidden, **FIXED)
        with options_of_part("fine_tuning"):
            options = network._options()
            options.require_validation(validation is not None)
            dropout = from_0(network.dropout, "dropout", below=1.0)
            input_dropout = from_0(network.input_dropout, "input_dropout", below=1.0)
        shape = Shape(
            (matrix.shape[1], *hidden, *reversed(hidden[:-1]), matrix.shape[1]), "sigmoid", loss, code=len(hidden)
        )
        none = np.empty(0, np.int32)
        work = FitNetwork(
            shape,
            options,
            Examples(matrix, none, options.divide_by),
            None if validation is None else Examples(matched(validation, matrix.shape[1]), none, options.divide_by),
            memory=0,
            initial="xavier",
            dropout=dropout,
            input_dropout=input_dropout,
            state=checked_state(state, restart),
            stage=f"{hidden[-1]} codes",
        )
        return FitBelief(work, before, given)

    def _stages(self, hidden: tuple[int, ...]) -> tuple[str, ...]:
        *below, top = super()._stages(hidden)
        return *below, f"{top} of {hidden[-1]} codes"

    @property
    def _code(self) -> int:
        assert self.shape_.code is not None
        return self.shape_.code

    def _back(self, said: Tensor) -> Tensor:
        """Outputs in the units of the source."""
        if self.shape_.loss == "binary_cross_entropy":
            said = said.sigmoid()
        return said * float(self.divide_by)

    def _applied(self, X: Any, function: Any, n_outputs: int, out: Any, overwrite: bool) -> np.ndarray | AnyPath:
        matrix = matched(X, self.shape_.units[0])

        def make(device: torch.device) -> Function:
            network = network_of(self.shape_, self._vector, device)
            return lambda rows: function(network, rows)

        options = self._network(hidden=(1,), **FIXED)._options()
        alive = self.shape_.n_alive + 2 * self.shape_.units[0]  # on the way back into the units of X, and to errors
        return applied(make, matrix, n_outputs, alive, options, out, overwrite, memory_of(self))
