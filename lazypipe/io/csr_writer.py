"""Sparse rows written as Arrow IPC or Parquet, a record batch or row group a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lazypipe.io.csr import Entries, index_dtype


class CsrWriter:
    """Appends rows to an open table, with a ``label`` (float64) a row if its schema has one."""

    def __init__(self, sink: pa.ipc.RecordBatchFileWriter | pq.ParquetWriter, schema: pa.Schema):
        self._sink = sink
        self._schema = schema

    def write(self, entries: Entries, labels: np.ndarray | None = None) -> None:
        """Append rows of less than 2**31 entries, checked and sorted; ``labels`` (n_rows,). Copies nothing."""
        ends = pa.array(entries.ends.astype(np.int32, copy=False))
        columns = [pa.ListArray.from_arrays(ends, pa.array(flat)) for flat in (entries.indices, entries.values)]
        if labels is not None:
            columns.append(pa.array(labels, pa.float64()))
        self._sink.write_batch(pa.record_batch(columns, schema=self._schema))


@contextmanager
def csr_writer(path: Path, suffix: str, n_columns: int, dtype: np.dtype, labelled: bool = False) -> Iterator[CsrWriter]:
    """Write ``path`` in the format of ``suffix`` (.arrow, .parquet), with values of ``dtype``."""
    index = pa.from_numpy_dtype(index_dtype(n_columns, 0))
    fields = [("indices", pa.list_(index)), ("values", pa.list_(pa.from_numpy_dtype(dtype)))]
    if labelled:
        fields.append(("label", pa.float64()))
    schema = pa.schema(fields, metadata={"n_columns": str(n_columns)})
    with open(path, "wb") as file:
        if suffix == ".parquet":
            sink = pq.ParquetWriter(file, schema, compression="zstd")
        else:
            sink = pa.ipc.new_file(file, schema)
        with sink:
            yield CsrWriter(sink, schema)
