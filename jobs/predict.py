"""What a trained network says of rows: ``python -m jobs predict --model results/mlp --source x.npy --out said.npy``."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from pydantic import Field, field_validator

import lazypipe as lp
from jobs._cli import command
from jobs._config import MatrixConfig
from lazypipe.atomic import replacing
from lazypipe.io import Matrix
from lazypipe.io.row_store import is_source
from lazypipe.io.sources import require_there
from lazypipe.stores import AnyPath, path_of

MODEL = "model.safetensors"
REMEDY = f"Pass the result folder of an mlp, dbn or rbm job, or its {MODEL}."


class PredictConfig(MatrixConfig):
    """Classes, probabilities or numbers that a network of the jobs mlp or dbn predicts for the rows of a matrix; of the
    job rbm the features, P(h = 1 | row).

      python -m jobs predict --model results/mlp --source data/new.npy --out predictions.npy
      python -m jobs predict --model results/rbm --source data/new.npy --out features.npy

    Rows are streamed, and features written as they come; predictions of all rows are held in memory.
    """

    model: str = Field(min_length=1, description="result folder of an mlp, dbn or rbm job, or its model.safetensors")
    out: str = Field(min_length=1, description=".npy to write: a class, or a number, of each row")
    probabilities: bool = Field(False, description="of each class, (rows, classes), in place of the likeliest class")
    overwrite: bool = Field(False, description="replace the file if it exists")

    @field_validator("out")
    @classmethod
    def _npy(cls, value: str) -> str:
        if Path(value).suffix != ".npy":
            raise ValueError(f"{value!r} does not end in .npy")
        return value


def run(config: PredictConfig) -> np.ndarray | Matrix:
    """Write the predictions, whole or not at all."""
    from lazypipe.nets.stack import is_stack

    path = _file_of(config.model)
    if is_stack(path, REMEDY):
        return _features(config, path)
    model = lp.MLP.load(path)
    matrix = lp.open_matrix(config.source, column=config.column)
    if is_source(path_of(config.out), matrix):
        raise lp.DataError(f"{config.out}: is the source itself. Write elsewhere.")
    with replacing(path_of(config.out), config.overwrite) as partial, open(partial, "wb") as file:
        said = model.predict_proba(matrix) if config.probabilities else model.predict(matrix)
        np.save(file, said)
    return said


def _file_of(model: str) -> AnyPath:
    """The file of a network, in a result folder or by itself."""
    path = path_of(model)
    file = path / MODEL if path.is_dir() else path
    if not file.exists():
        what = "no such file or directory" if file is path else f"holds no {MODEL}"
        raise lp.DataError(f"{path}: {what}. {REMEDY}")
    require_there(file)
    return file


def _features(config: PredictConfig, path: AnyPath) -> Matrix:
    """Those of a Boltzmann machine, left on disk."""
    if config.probabilities:
        raise lp.ConfigError("probabilities: are of classes, and a machine has none. Leave it out.")
    matrix = lp.open_matrix(config.source, column=config.column)
    lp.RBM.load(path).transform(matrix, out=config.out, overwrite=config.overwrite)
    return lp.open_matrix(config.out)


def main(argv: list[str] | None = None) -> int:
    def show(config: PredictConfig) -> None:
        said = run(config)
        print(f"wrote     {config.out}: {' x '.join(f'{n:,}' for n in said.shape)} {said.dtype}")

    return command("predict", PredictConfig, show, argv)


if __name__ == "__main__":
    sys.exit(main())
