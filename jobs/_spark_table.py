"""The options of a job that has Spark read a table, and how that table is read and written."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from jobs._config import Config, EngineConfig
from jobs._messages import option
from jobs._values import words
from lazypipe.console import ConsoleProgress
from lazypipe.engines import open_engine
from lazypipe.errors import ConfigError
from lazypipe.extras import require_packages
from lazypipe.progress import Progress
from lazypipe.tables.formats import format_of, require_known, require_there
from lazypipe.tables.record import Converted


def _pairs(value: Any) -> Any:
    """``a=1 b=2`` or ``a=1,b=2``, or the mapping of a YAML file, as words ``name=value``."""
    if isinstance(value, dict):
        return tuple(f"{name}={str(one).lower() if isinstance(one, bool) else one}" for name, one in value.items())
    given = re.split(r",(?=\w+=)", value) if isinstance(value, str) else value
    wrong = next((one for one in given if not re.match(r"\w[\w.]*=", str(one))), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} is no option of the reader: give name=value, such as header=true")
    return given


class SparkConfig(EngineConfig):
    """What reads a table. Files of a matrix are copied by this process."""

    kind: Literal["serial", "spark"] = Field(
        "serial", description="spark (needs Java 17 or 21) reads the source as a table; serial: the source is a matrix"
    )


class TableConfig(Config):
    """A table for Spark to read, and what its columns become."""

    table: str | None = Field(
        None, min_length=1, description="table or view of Spark's catalog, such as db.events, in place of a source"
    )
    format: str | None = Field(
        None,
        min_length=1,
        description="have Spark read the source as csv, parquet, json, orc, avro, delta or another of its formats; "
        "with --engine.kind spark its suffix tells",
    )
    options: Annotated[tuple[str, ...], BeforeValidator(_pairs)] = Field(
        (), description="options of Spark's reader, such as header=true inferSchema=true"
    )
    columns: Annotated[tuple[str, ...] | None, BeforeValidator(words)] = Field(
        None, description="columns of the table to take, in this order; without it all but the label"
    )
    label: str | None = Field(
        None, min_length=1, description="column of the table that goes to NAME.labels.npy beside the target"
    )
    nulls: Literal["raise", "nan", "zero", "drop"] = Field(
        "raise", description="what nulls of a table are: an error, NaN, 0, or a reason to leave their row out"
    )
    categories: Literal["one-hot", "codes"] | None = Field(
        None, description="what text in a table becomes: a column a category, or its number; without it an error"
    )
    max_categories: int = Field(1000, ge=1, description="categories that one column of a table may have")
    dtype: Literal["float16", "float32", "float64", "int8", "int16", "int32", "uint8", "bool"] | None = Field(
        None, description="type of a table's entries; without it the narrowest that holds all exactly"
    )
    engine: SparkConfig = Field(SparkConfig(), description="what reads a table")

    @property
    def is_table(self) -> bool:
        return self.table is not None or self.format is not None or self.engine.kind == "spark"


FOR_BOTH = ("source", "target", "overwrite", "memory")


def require_one_kind(config: TableConfig) -> None:
    """ConfigError for options that do not go together: some are for tables, some for matrices."""
    source, engine = getattr(config, "source", None), config.engine
    if config.table is None and source is None:
        raise ConfigError("--source: is missing; pass it, or --table for a table of Spark's catalog.")
    if config.table is not None and source is not None:
        raise ConfigError("--source: is given, and --table too; leave one out.")
    for name in ("format", "options"):
        if config.table is not None and getattr(config, name):
            raise ConfigError(f"{option(name)}: is for files; a table of the catalog has its own. Leave it out.")
    if config.is_table and engine.kind == "serial" and "kind" in engine.model_fields_set:
        raise ConfigError("--engine.kind: tables are read by Spark; pass spark, or leave it out.")
    fields = type(config).model_fields
    changed = [name for name in fields if name not in FOR_BOTH and getattr(config, name) != fields[name].default]
    for name in changed:
        if (name in TableConfig.model_fields) != config.is_table:
            which = "sources that are matrices" if config.is_table else "tables; for one, add --engine.kind spark"
            raise ConfigError(f"{option(name)}: is for {which}.")


def run_table(config: Any, console: ConsoleProgress) -> Converted:
    """Have Spark read the table, and write it."""
    if config.format is not None:
        require_known(config.format)
    require_packages("tables need", "spark", "pyspark")
    from lazypipe.tables.convert import convert_table, require_good  # which import pyspark
    from lazypipe.tables.frames import open_files, open_named

    require_good(config.target, config.nulls, config.categories, config.max_categories, config.dtype, config.overwrite)
    if config.source is not None and config.engine.address is None and "HADOOP_CONF_DIR" not in os.environ:
        require_there(config.source)  # before Java starts, which takes a while
        if config.format is None:
            format_of(config.source)
    engine_config = config.engine.model_dump() | {"kind": "spark"}
    progress = Progress((console,))
    with open_engine(**engine_config, progress=progress) as engine:
        session = engine.session  # type: ignore[attr-defined]
        if config.table is not None:
            frame = open_named(session, config.table)
        else:
            frame = open_files(session, config.source, config.format, dict(one.split("=", 1) for one in config.options))
        return convert_table(
            frame,
            config.target,
            name=config.table or config.source,
            columns=config.columns,
            label=config.label,
            nulls=config.nulls,
            categories=config.categories,
            max_categories=config.max_categories,
            dtype=config.dtype,
            overwrite=config.overwrite,
            memory=config.memory,
            progress=progress,
        )
