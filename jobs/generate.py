"""Write a matrix of known components, to test and to measure with: ``python -m jobs generate --help``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pydantic import BeforeValidator, Field

from jobs._cli import command
from jobs._config import Config
from lazypipe.console import ConsoleProgress
from lazypipe.io import Matrix, open_matrix
from lazypipe.io.generate import generate
from lazypipe.progress import Progress


def _variances(value: Any) -> Any:
    """``"9,4,1"``, as a command line has it, as a tuple."""
    if value == "1/i" or not isinstance(value, str):
        return value
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise ValueError(f"{value!r} is neither 1/i nor variances such as 9,4,1") from None


Spectrum = Annotated[Literal["1/i"] | tuple[float, ...], BeforeValidator(_variances)]


class GenerateConfig(Config):
    """Write a matrix of known spectrum, mean and noise, by blocks, and its true components beside it."""

    target: str = Field(min_length=1, description="file to write, .npy; the truth goes beside it")
    n_rows: int = Field(ge=2, description="rows (samples)")
    n_columns: int = Field(ge=1, description="columns (features)")
    spectrum: Spectrum = Field(
        "1/i", description="variances of the components: 1/i for the i-th, or a list such as 9,4,1"
    )
    rank: int | None = Field(None, ge=1, description="components; without it 50, or as many as the list has")
    mean: float = Field(0.0, ge=0, description="scale of the random means of the columns")
    noise: float = Field(0.0, ge=0, description="standard deviation of white noise on every value")
    dtype: Literal["float16", "float32", "float64"] = Field("float32", description="type of the values")
    seed: int = Field(0, ge=0, description="the same seed gives the same bytes")
    overwrite: bool = Field(False, description="replace the target if it exists")


def run(config: GenerateConfig) -> Matrix:
    """Write target and truth, whole or not at all; the matrix written."""
    arguments = config.model_dump()
    with ConsoleProgress("generate") as console:
        return open_matrix(generate(**arguments, progress=Progress((console,))))


def show(matrix: Matrix) -> None:
    """What was written."""
    stem = matrix.uri.removesuffix(".npy")
    print(f"wrote     {matrix.uri}: {matrix.shape[0]:,} x {matrix.shape[1]:,} {matrix.dtype}")
    print(f"truth     {stem}.components.npy, {stem}.mean.npy, {stem}.truth.npz")


def main(argv: list[str] | None = None) -> int:
    return command("generate", GenerateConfig, run, argv, show)


if __name__ == "__main__":
    sys.exit(main())
