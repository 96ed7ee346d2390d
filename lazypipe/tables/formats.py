"""Formats of tables, by name and as the names of files tell them; what there is not is told before Spark starts."""

from __future__ import annotations

from pathlib import Path

from lazypipe.checks import nearest
from lazypipe.errors import ConfigError, DataError
from lazypipe.io.formats import TABLES

FORMATS = TABLES | {".parquet": "parquet", ".pq": "parquet"}
PACKED = (".gz", ".bz2", ".zst", ".lz4", ".snappy")
# What Spark reads by itself, and with the packages for it that we know of.
READERS = ("csv", "json", "parquet", "orc", "text", "xml", "jdbc", "avro", "delta", "hudi", "iceberg")


def require_known(kind: str) -> None:
    """ConfigError for the name of a format that is none of ``READERS``; upper and lower case are the same.

    A name with a dot is the class of a reader, which Spark alone can judge. To be called before Java starts: that may
    take longer than the rest of the work.
    """
    if "." in kind or kind.lower() in READERS:
        return
    close = nearest(kind.lower(), READERS)
    raise ConfigError(
        f"format (--format): {kind!r} is no format that Spark reads{close}. Give one of {', '.join(READERS)}, or the "
        "class of a reader, such as com.example.Source."
    )


def format_of(source: str) -> str:
    """The format that a path's suffix, or the files in a folder, tell; DataError where they do not."""
    path = Path(source.removeprefix("file://")).expanduser()
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in PACKED]
    if suffixes and suffixes[-1] in FORMATS:
        return FORMATS[suffixes[-1]]
    if (path / "_delta_log").is_dir():
        return "delta"
    inside = {FORMATS[one.suffix.lower()] for one in path.glob("**/*") if one.suffix.lower() in FORMATS}
    if len(inside) == 1:
        return inside.pop()
    raise DataError(f"{source}: its name does not tell its format. Give it: format='csv' (--format csv).")


def require_there(source: str) -> None:
    """DataError where a path of this machine, or a pattern of paths, names nothing."""
    path = Path(source).expanduser().absolute()
    if "://" in source or "{" in source or path.exists():
        return
    if not any(Path(path.anchor).glob(str(path.relative_to(path.anchor)))):
        raise DataError(f"{source}: no such file or directory. Check the path.")
