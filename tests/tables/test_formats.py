"""Which format a table is of, told from its name or as it is given, without Spark."""

import pytest

from lazypipe.errors import ConfigError, DataError
from lazypipe.tables.formats import READERS, format_of, require_known, require_there


@pytest.mark.parametrize("name", ["csv", "Parquet", "text", "jdbc", "delta", "com.example.Source"])
def test_what_spark_may_know_is_let_through(name):
    require_known(name)


@pytest.mark.parametrize(
    ("name", "nearest"), [("cvs", "; the nearest is 'csv'"), ("parkett", "; the nearest is 'parquet'"), ("npy", "")]
)
def test_what_spark_does_not_read_is_refused_with_the_nearest_that_it_does(name, nearest):
    with pytest.raises(ConfigError) as told:
        require_known(name)
    assert str(told.value) == (
        f"format (--format): {name!r} is no format that Spark reads{nearest}. Give one of {', '.join(READERS)}, or the "
        "class of a reader, such as com.example.Source."
    )


@pytest.mark.parametrize(
    ("source", "kind"),
    [("a.csv", "csv"), ("raw/*.TSV.gz", "csv"), ("a.c000.snappy.parquet", "parquet"), ("file:///x/a.jsonl", "json")],
)
def test_a_suffix_tells(source, kind):
    assert format_of(source) == kind


def test_the_files_of_a_folder_tell_where_they_are_of_one_format(tmp_path):
    (tmp_path / "part-0.parquet").touch()
    (tmp_path / "_SUCCESS").touch()
    assert format_of(str(tmp_path)) == "parquet"
    (tmp_path / "_delta_log").mkdir()
    assert format_of(str(tmp_path)) == "delta"
    (tmp_path / "_delta_log").rmdir()
    (tmp_path / "a.csv").touch()
    with pytest.raises(DataError, match=r"its name does not tell its format\. Give it: format='csv' \(--format csv\)"):
        format_of(str(tmp_path))


def test_a_pattern_that_names_nothing_is_told(tmp_path):
    (tmp_path / "a.csv").touch()
    for there in (tmp_path / "a.csv", tmp_path / "*.csv", tmp_path / "{a,b}.csv", "s3a://bucket/a.csv"):
        require_there(str(there))
    with pytest.raises(DataError, match=r"b\*: no such file or directory"):
        require_there(str(tmp_path / "b*"))
