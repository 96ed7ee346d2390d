"""Copy a matrix to a format that is fast to read again and again: .npy, Arrow IPC or Zarr panels."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: jobs and lazypipe are in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pydantic import Field

from jobs._cli import command
from jobs._config import Config, MemorySize
from lazypipe.console import ConsoleProgress
from lazypipe.io import Matrix, convert, open_matrix
from lazypipe.progress import Progress
from lazypipe.sizes import parse_bytes


class ConvertConfig(Config):
    """Copy a matrix of any known format to .npy, Arrow IPC or Zarr panels, by blocks, in bounded memory.

    .npy and .arrow hold rows; .zarr holds panels, column stripes that are each contiguous on disk: for wide
    matrices on a cold or remote disk.
    """

    source: str = Field(min_length=1, description="matrix to read: .npy, Arrow IPC, Parquet or Zarr")
    target: str = Field(
        min_length=1, description="file to write; its suffix is the format: .npy, .arrow, or .zarr (panels)"
    )
    column: str | None = Field(
        None, description="list column of a table, or array of a Zarr group, where the source has several"
    )
    overwrite: bool = Field(False, description="replace the target if it exists")
    memory: MemorySize = Field("512MiB", description="budget for the blocks, such as 512MiB or 2GiB")
    panel_columns: int | None = Field(
        None, ge=1, description="columns of a panel of a .zarr target; about 8 MiB of them unless given"
    )


def run(config: ConvertConfig) -> Matrix:
    """Write the target, whole or not at all; the matrix it holds."""
    source = open_matrix(config.source, column=config.column)
    with ConsoleProgress("convert") as console:
        progress = Progress((console,))
        convert(
            source,
            config.target,
            overwrite=config.overwrite,
            memory=parse_bytes(config.memory),
            panel_columns=config.panel_columns,
            progress=progress,
        )
    return open_matrix(config.target)


def show(matrix: Matrix) -> None:
    """What was written."""
    print(f"wrote     {matrix.uri}: {matrix.shape[0]:,} x {matrix.shape[1]:,} {matrix.dtype}")


def main(argv: list[str] | None = None) -> int:
    return command("convert", ConvertConfig, lambda config: show(run(config)), argv)


if __name__ == "__main__":
    sys.exit(main())
