"""Spikes in Parquet, a file or a directory of parts: a row a spike."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from lazypipe.errors import DataError
from lazypipe.io.parquet_file import damaged, parquet_file, part_paths
from lazypipe.io.spikes.options import Options
from lazypipe.io.spikes.spikes import Spikes
from lazypipe.io.spikes.tables import Columns, choose_columns, from_batches
from lazypipe.stores import AnyPath


def read(path: AnyPath, options: Options) -> Spikes:
    """Spikes of a table; of a directory the parts in the order of their names, which must have the same columns."""
    parts = part_paths(path)
    with parquet_file(str(parts[0])) as file:
        schema = file.schema_arrow
    columns = choose_columns(schema, options, str(parts[0]))
    return from_batches(_batches(parts, schema, columns), columns, options, str(path))


def _batches(parts: list[AnyPath], schema: pa.Schema, columns: Columns) -> Iterator[pa.RecordBatch]:
    for part in parts:
        with parquet_file(str(part)) as file:
            for name in columns.names:
                if (
                    file.schema_arrow.names.count(name) != 1
                    or file.schema_arrow.field(name).type != schema.field(name).type
                ):
                    raise DataError(
                        f"{part}: its column {name!r} differs from that of {parts[0].name}. Write them alike."
                    )
            try:
                yield from file.iter_batches(columns=columns.names, use_threads=False)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise damaged(str(part), error) from error
