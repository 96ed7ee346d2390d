"""Formats that files tell by their names; what is not there is told before Spark starts."""

from __future__ import annotations

from pathlib import Path

from lazypipe.errors import DataError

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".orc": "orc",
    ".avro": "avro",
}
PACKED = (".gz", ".bz2", ".zst", ".lz4", ".snappy")


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
