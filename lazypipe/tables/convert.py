"""A table that Spark reads as a .npy: one pass measures, one writes, each by Spark's tasks in parallel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

import numpy as np
from pyspark.sql import DataFrame, SparkSession

from lazypipe.atomic import replacing, require_free
from lazypipe.blocks import SUPPORTED_DTYPES
from lazypipe.checks import named, whole
from lazypipe.engines.spark_java import LOST, java_told
from lazypipe.errors import DataError, MemoryPlanError
from lazypipe.io.convert import npy_header
from lazypipe.io.images import labels_path
from lazypipe.progress import Progress
from lazypipe.sizes import KIB, parse_bytes, show_bytes
from lazypipe.stores import is_remote, path_of
from lazypipe.tables import record
from lazypipe.tables.chosen import choose, selected
from lazypipe.tables.features import Feature
from lazypipe.tables.frames import ERRORS, unreadable, with_places
from lazypipe.tables.judged import Judged, judge
from lazypipe.tables.passes import Labels, Measure, Split, Write, changed
from lazypipe.tables.running import reports

NULLS = {"raise": None, "nan": float("nan"), "zero": 0.0, "drop": None}
CATEGORIES = ("one-hot", "codes")
MOST_CATEGORIES = 1000
MOST_RECORDS = 2**16  # rows of a batch
HEADER_NBYTES = 64 * KIB
SHARES = 8  # of the budget: a batch in Arrow, its columns in NumPy as float64, and finished rows, with room


def convert_table(
    frame: DataFrame,
    target: str | Path,
    *,
    name: str = "frame",
    columns: Sequence[str] | None = None,
    label: str | None = None,
    nulls: Literal["raise", "nan", "zero", "drop"] = "raise",
    categories: Literal["one-hot", "codes"] | None = None,
    max_categories: int = MOST_CATEGORIES,
    dtype: str | None = None,
    overwrite: bool = False,
    memory: str | float = "512MiB",
    progress: Progress | None = None,
) -> record.Converted:
    """Write a table to a .npy, a row a row, in two passes of Spark over it; no row goes through the driver.

    Parameters
    ----------
    frame : what ``open_files`` or ``open_named`` give, or any DataFrame whose rows come in a fixed order.
    target : a .npy in a folder that the driver and all workers see under the same path.
    name : what errors call the table.
    columns : the columns to take, in this order; None takes all but the label, in the table's order. Numbers and truth
        values are taken as they are, decimals as the nearest float64, lists and vectors of one length as a column an
        entry, dates and times (only if they are named) as days and seconds since 1970, text as ``categories`` says.
    label : the column that goes to ``NAME.labels.npy`` beside the target, in its own dtype, and not into the matrix.
    nulls : "raise" (DataError with the count of each column); "nan" or "zero" fills them; "drop" leaves their rows out.
        NaN is no null, and stays.
    categories : "one-hot" makes a column of each text that occurs, sorted; "codes" their numbers in that order.
    max_categories : more of them in one column are refused.
    dtype : of the matrix; None takes the narrowest that holds every number exactly, where whole numbers stay whole.
    memory : budget for the batches in each Python worker.

    Rows come in the order of the names of their files and of their place in them, and so do not depend on how Spark
    deals them out; rows of what has no files come in the order of Spark's partitions. The target appears whole or not
    at all, and with it ``NAME.columns.json``: source, category, nulls and range of each column.

    Raises
    ------
    DataError : what Spark cannot read, columns that are no numbers, nulls, lists of several lengths, too many
        categories, numbers that the dtype does not hold, a table that changes meanwhile, no room on the disk.
    MemoryPlanError : a few rows do not fit ``memory``.
    EngineError : Java died, or no executor is left.
    """
    path = require_good(target, nulls, categories, max_categories, dtype, overwrite)
    budget = parse_bytes(memory)
    progress = progress or Progress()
    with java_told(frame.sparkSession.sparkContext, name):
        features, label_feature = choose(frame.schema, columns, label, categories, name)
        rows = _rows(frame, (*features, *([label_feature] if label_feature else [])), name)

    measure = Measure(features, label_feature, nulls == "drop", max_categories)
    seen = measure.nothing()
    with _batches(frame.sparkSession, budget // SHARES, len(features), name):
        for part in reports(rows, measure, f"measure {name}", name, progress):
            seen.merge(part)
    judged = judge(seen, nulls, categories, max_categories, dtype, name)
    _require_memory(judged, budget, name)

    head = {"source": name, "rows": judged.n_rows, "dtype": judged.dtype.name, "nulls": nulls}
    head |= {"rows_dropped": seen.n_dropped, "label": label}
    with ExitStack() as outputs:
        # Entered first, moved into place last: where the matrix stands, its labels and its record do too.
        matrix = _Output(outputs, path, (judged.n_rows, judged.width), judged.dtype, overwrite)
        labels = None
        if judged.labels is not None and label_feature is not None:
            file = _Output(outputs, labels_path(path), (judged.n_rows,), judged.labels, overwrite)
            labels = Labels(label_feature, str(file.partial), file.offset, judged.labels.str)
        record.write(outputs.enter_context(replacing(record.columns_path(path), overwrite)), head, judged.fields)
        write = Write(
            path=str(matrix.partial),
            offset=matrix.offset,
            dtype=judged.dtype.str,
            fields=judged.fields,
            places=judged.places,
            fill=NULLS[nulls],
            drop=nulls == "drop",
            uri=name,
            labels=labels,
        )
        with _batches(frame.sparkSession, budget // SHARES, max(judged.width, len(features)), name):
            written = reports(rows.drop("file"), write, f"write {path.name}", name, progress)
        _require_whole(judged, written, name)
    return record.Converted(
        path,
        (judged.n_rows, judged.width),
        judged.dtype,
        judged.fields,
        seen.n_dropped,
        judged.rounded,
        None if labels is None else labels_path(path),
    )


def require_good(
    target: str | Path, nulls: str, categories: str | None, max_categories: int, dtype: str | None, overwrite: bool
) -> Path:
    """The path of the target; DataError or ConfigError for what can be refused before a table is opened."""
    named("nulls", nulls, NULLS)
    if categories is not None:
        named("categories", categories, dict.fromkeys(CATEGORIES))
    whole(max_categories, "max_categories")
    if dtype is not None:
        named("dtype", dtype, dict.fromkeys(SUPPORTED_DTYPES))
    if is_remote(target):
        raise DataError(f"{target}: the tasks of Spark write into files. Name a folder that all workers share.")
    path = path_of(target)
    assert isinstance(path, Path)
    if path.suffix != ".npy":
        raise DataError(
            f"{path}: a table is not written to {path.suffix or 'no suffix'!r}. Write a .npy, and convert that: "
            f"python -m jobs convert --source {path.stem}.npy --target {path.name}."
        )
    for one in (path, labels_path(path), record.columns_path(path)):
        require_free(one, overwrite)
    return path


def _rows(frame: DataFrame, features: Sequence[Feature], name: str) -> DataFrame:
    """The columns as Spark sends them, by names that no two share, behind where each row comes from."""
    columns = [selected(one, frame.schema).alias(f"c{i}") for i, one in enumerate(features)]
    try:
        return with_places(frame, columns, name).toDF("file", "key", "begin", *(f"c{i}" for i in range(len(columns))))
    except ERRORS as error:
        raise unreadable(name, error) from error


@contextmanager
def _batches(session: SparkSession, n_bytes: int, width: int, name: str) -> Iterator[None]:
    """While the block lasts, batches of Arrow have at most that many bytes, and as many rows of that width."""
    arrow = "spark.sql.execution.arrow"
    n_records = max(1, min(MOST_RECORDS, n_bytes // (8 * (width + 3))))
    wanted = {f"{arrow}.maxRecordsPerBatch": str(n_records), f"{arrow}.maxBytesPerBatch": str(n_bytes)}
    with java_told(session.sparkContext, name):
        before = {key: session.conf.get(key) for key in wanted}
        try:
            for key, value in wanted.items():
                session.conf.set(key, value)
            yield
        finally:
            with suppress(*LOST):  # of Java that has died: told already
                for key, old in before.items():
                    if old is not None:
                        session.conf.set(key, old)


def _require_memory(judged: Judged, budget: int, name: str) -> None:
    n_bytes = judged.width * max(8, judged.dtype.itemsize)
    if SHARES * n_bytes > budget:
        raise MemoryPlanError(
            f"{name}: a row of {judged.width:,} columns takes {show_bytes(n_bytes)} on its way, and {SHARES} of them "
            f"have to fit the memory of {show_bytes(budget)}. Raise it: memory= (--memory)."
        )


class _Output:
    """A .npy of its full size beside its name, for workers to write into; in place when ``outputs`` close well."""

    def __init__(self, outputs: ExitStack, path: Path, shape: tuple[int, ...], dtype: np.dtype, overwrite: bool):
        header, n_bytes = npy_header(shape, dtype), int(np.prod(shape, dtype=object)) * dtype.itemsize
        self.offset = len(header)
        self.partial = outputs.enter_context(replacing(path, overwrite, n_bytes + HEADER_NBYTES))
        with open(self.partial, "wb") as file:
            file.write(header)
            file.truncate(self.offset + n_bytes)


def _require_whole(judged: Judged, written: list[dict[Split, int]], name: str) -> None:
    """Every row was written, once."""
    total: dict[Split, int] = {}
    for done in written:
        for split, n_rows in done.items():
            total[split] = total.get(split, 0) + n_rows
    if any(total.get(split, 0) != n_rows for split, (_, n_rows) in judged.places.items()):
        raise changed(name)
