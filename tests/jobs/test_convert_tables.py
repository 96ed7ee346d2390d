"""``convert`` of a table with a real Spark; what is refused before Java starts is in tests/bad_inputs.py."""

import json
import shutil

import numpy as np
import pytest

CSV = "day,age,city,y\n2001-02-03,31,Rome,1\n2001-02-04,,Oslo,0\n2001-02-05,55,Rome,1\n"


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
