"""``convert`` of tables, as people call it: what is refused before Java starts, and one run with a real Spark."""

import json
import shutil

import numpy as np
import pytest

CSV = "day,age,city,y\n2001-02-03,31,Rome,1\n2001-02-04,,Oslo,0\n2001-02-05,55,Rome,1\n"

REFUSED = {
    "nothing": ((), "--source: is missing; pass it, or --table for a table of Spark's catalog."),
    "both": (("--source", "a.csv", "--table", "t"), "--source: is given, and --table too; leave one out."),
    "table with a format": (("--table", "t", "--format", "csv"), "--format: is for files; a table of the catalog has"),
    "not by Spark": (
        ("--table", "t", "--engine.kind", "serial"),
        "--engine.kind: tables are read by Spark; pass spark, or leave it out.",
    ),
    "by Dask": (("--table", "t", "--engine.kind", "dask"), "--engine.kind: 'dask' is not one of serial, spark"),
    "columns of a matrix": (
        ("--source", "rows.npy", "--columns", "a"),
        "--columns: is for tables; for one, add --engine.kind spark.",
    ),
    "panels of a table": (
        ("--source", "a.csv", "--format", "csv", "--panel-columns", "5"),
        "--panel-columns: is for sources that are matrices.",
    ),
    "options": (
        ("--source", "a.csv", "--engine.kind", "spark", "--options", "header"),
        "--options: 'header' is no option of the reader: give name=value, such as header=true",
    ),
    "nulls": (("--source", "a.csv", "--nulls", "omit"), "--nulls: 'omit' is not one of raise, nan, zero, drop"),
    "no file": (("--source", "raw/*.csv", "--engine.kind", "spark"), "raw/*.csv: no such file or directory"),
    "no format": (("--source", "rows.npy", "--engine.kind", "spark"), "its name does not tell its format. Give it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_told_in_one_line_before_spark_starts(jobs, name):
    arguments, said = REFUSED[name]
    (jobs.folder / "a.csv").write_text(CSV)
    assert said in jobs.refused("convert", *arguments, "--target", "new/x.npy")


def test_a_target_that_cannot_be_is_told_before_spark_starts(jobs):
    (jobs.folder / "a.csv").write_text(CSV)
    table = ("convert", "--source", "a.csv", "--engine.kind", "spark")
    assert "a table is not written to '.zarr'. Write a .npy" in jobs.refused(*table, "--target", "x.zarr")
    assert "rows.npy: exists" in jobs.refused(*table, "--target", "rows.npy")


@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")
def test_a_table_is_converted_and_its_columns_are_told(jobs):
    (jobs.folder / "a.csv").write_text(CSV)
    (jobs.folder / "table.yaml").write_text(
        "options: {header: true, inferSchema: true}\ncolumns: [age, city, day]\ncategories: one-hot\n"
        "engine: {workers: 1}\n"
    )
    options = ("--format", "csv", "--label", "y", "--nulls", "nan", "--target", "out/x.npy")
    done = jobs("convert", "--config", "table.yaml", "--source", "a.csv", *options)
    assert done.returncode == 0, done.stderr
    wanted = [[31, 0, 1, 11356], [np.nan, 1, 0, 11357], [55, 0, 1, 11358]]
    np.testing.assert_array_equal(np.load(jobs.folder / "out" / "x.npy"), np.array(wanted, np.float32))
    assert np.load(jobs.folder / "out" / "x.labels.npy").tolist() == [1, 0, 1]
    record = json.loads((jobs.folder / "out" / "x.columns.json").read_text())
    assert [one["source"] for one in record["columns"]] == ["age", "city", "city", "day"]
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["columns", "source", "type", "nulls", "NaN", "min", "max"]
    assert lines[1].split() == ["0", "age", "int", "1", "0", "31", "55"]
    assert lines[2].split() == ["1", "to", "2", "city", "string", "0", "0", "one-hot,", "2", "categories"]
    assert lines[3].split()[:4] == ["3", "day", "date", "0"]
    assert "out/x.npy: 3 x 4 float32" in lines[4]
    assert sorted(path.name for path in (jobs.folder / "out").iterdir()) == ["x.columns.json", "x.labels.npy", "x.npy"]
