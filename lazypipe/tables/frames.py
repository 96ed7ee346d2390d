"""Tables as Spark opens them: by name, or files of a format; and their rows in an order that stays."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyspark
from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sql

from lazypipe.engines.spark_java import java_told, said
from lazypipe.errors import DataError
from lazypipe.tables.formats import format_of

SPARK = pyspark.__version__
PACKAGES = {
    "avro": f"org.apache.spark:spark-avro_2.13:{SPARK}",
    "delta": f"io.delta:delta-spark_2.13:VERSION (its release for Spark {'.'.join(SPARK.split('.')[:2])})",
}
ERRORS = (Py4JJavaError, PySparkException)
SHUFFLED = re.compile(r"(?<!\w)Exchange ")


def open_named(session: SparkSession, name: str) -> DataFrame:
    """A table or view of the catalog; DataError in one line where there is none."""
    try:
        with java_told(session.sparkContext, name):
            return session.table(name)
    except ERRORS as error:
        condition = condition_of(error)
        if condition.startswith("PARSE"):
            raise DataError(
                f"{name!r}: is no name of a table. Give it as table, database.table or catalog.database.table; odd "
                f"names in backticks."
            ) from error
        if "NOT_FOUND" not in condition:
            raise unreadable(name, error) from error
        catalog = session.conf.get("spark.sql.catalogImplementation")
        own = " (in memory: it knows what its own session made)" if catalog == "in-memory" else ""
        raise DataError(
            f"{name}: there is no such table in Spark's catalog{own}. Check the name; the catalog is set in "
            f"spark-defaults.conf of $SPARK_CONF_DIR, as spark.sql.catalogImplementation hive."
        ) from error


def open_files(session: SparkSession, source: str, kind: str | None, options: Mapping[str, str]) -> DataFrame:
    """Files of one format: a path, a folder, or a pattern (raw/*.csv).

    Without ``kind`` the name of the source tells its format. ``options`` are those of Spark's reader; of jdbc they
    hold the address, and ``source`` only names it in errors. DataError in one line where Spark cannot open it.
    """
    kind = kind or format_of(source)
    path = source if "://" in source else str(Path(source).expanduser())
    try:
        with java_told(session.sparkContext, source):
            reader = session.read.format(kind).options(**options)
            return reader.load() if kind.lower() == "jdbc" else reader.load(path)
    except ERRORS as error:
        condition = condition_of(error)
        if condition in ("AVRO_DATA_SOURCE_NOT_ENABLED", "DATA_SOURCE_NOT_FOUND"):
            package = PACKAGES.get(kind.lower(), f"THE PACKAGE OF {kind}")
            raise DataError(
                f"{source}: this Spark has no reader of {kind!r}. Check the name, or submit with the package: "
                f"spark-submit --packages {package} jobs/convert.py ..."
            ) from error
        if condition == "PATH_NOT_FOUND":
            raise DataError(f"{source}: no such file or directory. Check the path.") from error
        if condition.startswith("UNABLE_TO_INFER_SCHEMA"):
            raise DataError(f"{source}: holds no {kind} files with a schema. Check the path and the format.") from error
        raise unreadable(source, error) from error


def with_places(frame: DataFrame, columns: Sequence[Column], uri: str) -> DataFrame:
    """The columns, behind where each row comes from: its file, a hash of that, and where in the file its split begins.

    Of a table without files these are nothing, the partition, and 0. DataError for rows in no fixed order: a task that
    Spark runs twice would write them in two.
    """
    execution = frame._jdf.queryExecution()
    if SHUFFLED.search(execution.executedPlan().toString()) or not execution.analyzed().deterministic():
        raise DataError(
            f"{uri}: its rows come in no fixed order (out of a join, group or sort, or at random). Write it to files "
            f"first, frame.write.parquet(...), and convert those."
        )
    file = sql.col("_metadata.file_path")
    try:
        return frame.select(file, sql.xxhash64(file), sql.col("_metadata.file_block_start"), *columns)
    except AnalysisException:
        part = sql.spark_partition_id().cast("long")
        return frame.select(sql.lit(""), part, sql.lit(0).cast("long"), *columns)


def unreadable(uri: str, error: BaseException) -> DataError:
    return DataError(f"{uri}: Spark cannot read it: {said(error)}. Check the path, the format and its options.")


def condition_of(error: BaseException) -> str:
    """Spark's name of what went wrong, such as PATH_NOT_FOUND; empty where it gives none."""
    found = re.search(r"\[([A-Z][A-Z0-9_.]+)\]", str(error))
    return found[1] if found else ""
