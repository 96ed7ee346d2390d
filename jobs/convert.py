"""Copy a matrix, or a table that Spark reads, to a format that is fast to read again and again: .npy, Zarr panels."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pydantic import Field

from jobs._cli import command
from jobs._config import Config, MemorySize
from jobs._spark_table import TableConfig, require_one_kind, run_table
from jobs._tables import aligned
from lazypipe.console import ConsoleProgress
from lazypipe.io import Matrix, open_matrix
from lazypipe.io.convert import convert
from lazypipe.io.csr import SparseRows
from lazypipe.progress import Progress
from lazypipe.tables.record import LINES_SHOWN, Converted, table


class MatrixConfig(Config):
    """A matrix, and how it is written."""

    source: str | None = Field(
        None,
        min_length=1,
        description="matrix to read: .npy, .npz, Arrow IPC, Parquet, Zarr, IDX (.gz too), svmlight text, or a folder "
        "of images; or a table's files, or a pattern of them (raw/*.csv), for Spark to read",
    )
    target: str = Field(
        min_length=1,
        description="file to write; its suffix is the format: .npy, .arrow, .zarr (panels), .parquet (sparse only)",
    )
    column: str | None = Field(
        None, description="list column of a table, or array of a Zarr group, where the source has several"
    )
    n_columns: int | None = Field(
        None, ge=1, description="columns of svmlight text; by default its largest index and one"
    )
    zero_based: bool | None = Field(
        None, description="whether indices of svmlight text count from 0; by default only if one of them is 0"
    )
    colour: bool = Field(False, description="keep red, green and blue of a folder of images; by default grey")
    overwrite: bool = Field(False, description="replace the target if it exists")
    memory: MemorySize = Field("512MiB", description="budget for the blocks, such as 512MiB or 2GiB")
    panel_columns: int | None = Field(
        None, ge=1, description="columns of a panel of a .zarr target; about 32 MiB of them unless given"
    )


class ConvertConfig(TableConfig, MatrixConfig):
    """Copy a matrix of any known format to one that is fast to read again and again, by blocks, in bounded memory.

    .npy and .arrow hold rows; .zarr holds panels, column stripes that are each contiguous on disk: for wide
    matrices on a cold or remote disk. Sparse rows, and svmlight text, go to .arrow or .parquet. A folder of images of
    one size becomes a row an image, and if it has a subfolder a class, NAME.labels.npy beside NAME.npy holds the class
    of each row; such rows are shuffled, always in the same way, so that any first rows are a fair sample.

    With --engine.kind spark (or --table, or --format) Spark reads a table, and its tasks write it to a .npy in
    parallel: numbers and truth values as they are, lists of one length as a column an entry, text as categories.
    NAME.columns.json beside NAME.npy tells what each column is. Rows come in the order of their files' names.

      python -m jobs convert --table db.events --target data/events.npy --engine.kind spark
      python -m jobs convert --source 'raw/*.csv' --format csv --options header=true inferSchema=true
        --columns age income city --categories one-hot --label y --target data/people.npy
    """


def run(config: ConvertConfig) -> Matrix | Converted:
    """Write the target, whole or not at all; the matrix it holds."""
    require_one_kind(config)
    with ConsoleProgress("convert") as console:
        if config.is_table:
            return run_table(config, console)
        progress = Progress((console,))
        assert config.source is not None
        convert(
            config.source,
            config.target,
            column=config.column,
            overwrite=config.overwrite,
            memory=config.memory,
            panel_columns=config.panel_columns,
            n_columns=config.n_columns,
            zero_based=config.zero_based,
            colour=config.colour,
            progress=progress,
        )
    return open_matrix(config.target)


def show(matrix: Matrix | Converted) -> None:
    """What was written."""
    if isinstance(matrix, Converted):
        show_table(matrix)
        return
    entries = f", {matrix.nnz:,} entries" if isinstance(matrix, SparseRows) else ""
    print(f"wrote     {matrix.uri}: {matrix.shape[0]:,} x {matrix.shape[1]:,} {matrix.dtype}{entries}")


def show_table(made: Converted) -> None:
    """What was written, and what each column was."""
    print("\n".join(aligned(table(made.fields))))
    if len(made.fields) > LINES_SHOWN:
        print(f"and {len(made.fields) - LINES_SHOWN:,} more")
    if made.n_dropped:
        print(f"left out  {made.n_dropped:,} rows with a null")
    if made.rounded:
        print(f"rounded   {', '.join(made.rounded)}: not every number is exact in {made.dtype}")
    infinite = [field.name for field in made.fields if field.n_infinite]
    if infinite:
        print(f"infinite  entries in {', '.join(infinite)}, which jobs refuse")
    print(f"wrote     {made.path}: {made.shape[0]:,} x {made.shape[1]:,} {made.dtype}")
    if made.labels is not None:
        print(f"labels    {made.labels}")
    print(f"columns   {made.columns}")


def main(argv: list[str] | None = None) -> int:
    return command("convert", ConvertConfig, run, argv, show)


if __name__ == "__main__":
    sys.exit(main())
