"""Spikes in Arrow IPC files (.arrow, Feather v2): a row a spike."""

from __future__ import annotations

from lazypipe.errors import DataError
from lazypipe.io.ipc_file import ipc_file, record_batch
from lazypipe.io.sources import one_line
from lazypipe.io.spikes.options import Options
from lazypipe.io.spikes.spikes import Spikes
from lazypipe.io.spikes.tables import choose_columns, from_batches
from lazypipe.stores import AnyPath


def read(path: AnyPath, options: Options) -> Spikes:
    """Spikes of a table in Arrow's *file* format; of other columns nothing is decoded."""
    uri = str(path)
    with ipc_file(uri) as file:
        try:
            names = file.schema.names
        except UnicodeDecodeError as error:
            raise DataError(f"{uri}: is a damaged Arrow file ({one_line(error)}). Write or copy it again.") from error
        columns = choose_columns(file.schema, options, uri)
    with ipc_file(uri, tuple(names.index(name) for name in columns.names)) as file:
        batches = (record_batch(file, index, uri) for index in range(file.num_record_batches))
        return from_batches(batches, columns, options, uri)
