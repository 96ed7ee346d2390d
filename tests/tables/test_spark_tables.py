"""Tables as a real Spark reads them, beside what pandas and pyarrow read."""

import datetime
import decimal
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lazypipe as lp
from lazypipe.progress import Progress, StageDone, StageStarted, TaskDone
from lazypipe.tables.convert import convert_table
from lazypipe.tables.frames import open_files, open_named

HEAD = {"header": "true", "inferSchema": "true"}


@pytest.fixture(scope="session")
def session(spark_engine):
    return spark_engine.session


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Three .csv files whose sizes are not in the order of their names."""
    folder = tmp_path_factory.mktemp("people") / "raw 100%"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, n_rows in (("a", 30), ("b", 900), ("c", 200)):
        table = pd.DataFrame(
            {
                "age": rng.integers(1, 99, n_rows),
                "income": rng.normal(40_000, 9_000, n_rows),
                "city": rng.choice(["Rome", "Århus", "Łódź", "New York"], n_rows),
                "member": rng.random(n_rows) < 0.5,
                "y": rng.choice(["yes", "no", "perhaps"], n_rows),
            }
        )
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def in_pandas(folder):
    return pd.concat(
        [pd.read_csv(path, float_precision="round_trip") for path in sorted(folder.glob("*.csv"))], ignore_index=True
    )


@pytest.fixture
def small_splits(session):
    """Spark cuts files into many partitions, and packs small ones in no order of ours."""
    names = {"spark.sql.files.maxPartitionBytes": "8192", "spark.sql.files.openCostInBytes": "100"}
    before = {name: session.conf.get(name) for name in names}
    for name, value in names.items():
        session.conf.set(name, value)
    yield
    for name, value in before.items():
        session.conf.set(name, value)


@pytest.mark.parametrize("kind", ["one-hot", "codes"])
def test_csv_files_become_the_matrix_that_pandas_reads_in_the_order_of_their_names(
    session, people, tmp_path, kind, small_splits
):
    frame = open_files(session, str(people / "*.csv"), "csv", HEAD)
    made = convert_table(
        frame, tmp_path / "people.npy", columns=["income", "city", "age", "member"], label="y", categories=kind
    )
    table = in_pandas(people)
    cities = sorted(set(table.city))
    city = np.array([[one == other for other in cities] for one in table.city])
    if kind == "codes":
        city = np.argmax(city, 1)[:, None]
    wanted = np.column_stack([table.income, city, table.age, table.member])
    x = np.load(made.path)
    assert x.dtype == made.dtype == np.float64 and x.shape == made.shape
    np.testing.assert_array_equal(x, wanted)
    assert np.load(made.labels).tolist() == table.y.tolist()
    assert made.path.with_name("people.labels.npy") == made.labels
    record = json.loads(made.columns.read_text())
    assert [one["index"] for one in record["columns"]] == list(range(made.shape[1]))
    assert [one["source"] for one in record["columns"]][:2] == ["income", "city"]
    if kind == "one-hot":
        assert [one["category"] for one in record["columns"][1:5]] == cities == ["New York", "Rome", "Århus", "Łódź"]
    assert (record["columns"][0]["min"], record["columns"][0]["max"]) == (table.income.min(), table.income.max())


def test_parquet_in_many_splits_has_the_bits_and_the_order_of_pyarrow(session, tmp_path, small_splits):
    folder = tmp_path / "parts"
    folder.mkdir()
    rng = np.random.default_rng(1)
    tables = []
    for i, n_rows in enumerate((500, 7_000, 10, 3_000)):
        table = pa.table(
            {
                "id": pa.array(np.arange(n_rows, dtype=np.int32)),
                "x": pa.array(rng.normal(size=n_rows).astype(np.float32)),
                "flag": pa.array(rng.random(n_rows) < 0.5),
            }
        )
        pq.write_table(table, folder / f"part-{i:05}.parquet", row_group_size=1_000)
        tables.append(table)
    frame = open_files(session, str(folder), None, {})
    assert frame.rdd.getNumPartitions() > 4
    made = convert_table(frame, tmp_path / "x.npy", memory="1MiB")
    whole = pa.concat_tables(tables)
    wanted = np.column_stack([whole[name].to_numpy().astype(np.float32) for name in ("id", "x", "flag")])
    assert made.dtype == np.float32
    assert np.load(made.path).tobytes() == wanted.tobytes()


def test_however_spark_deals_the_rows_out_the_bytes_are_the_same(session, people, tmp_path):
    found = []
    before = session.conf.get("spark.sql.files.maxPartitionBytes")
    for n_bytes in ("1000", "20000", "100m"):
        session.conf.set("spark.sql.files.maxPartitionBytes", n_bytes)
        frame = open_files(session, str(people), None, HEAD)
        found.append(convert_table(frame, tmp_path / f"{n_bytes}.npy", columns=["age", "income"]).path.read_bytes())
    session.conf.set("spark.sql.files.maxPartitionBytes", before)
    assert found[0] == found[1] == found[2]


def test_a_table_of_the_catalog(session, tmp_path):
    rows = pd.DataFrame({"a": np.arange(100), "b": np.arange(100) / 8})
    session.sql("create database if not exists db_of_tests")
    session.createDataFrame(rows).coalesce(1).write.option("path", str(tmp_path / "events")).mode(
        "overwrite"
    ).saveAsTable("db_of_tests.events")
    made = convert_table(open_named(session, "db_of_tests.events"), tmp_path / "x.npy", name="db_of_tests.events")
    np.testing.assert_array_equal(np.load(made.path), rows.to_numpy())
    assert json.loads(made.columns.read_text())["source"] == "db_of_tests.events"
    session.sql("drop database db_of_tests cascade")


def test_components_are_those_of_the_matrix_in_pandas(session, spark_engine, people, tmp_path):
    frame = open_files(session, str(people), None, HEAD)
    made = convert_table(frame, tmp_path / "x.npy", categories="one-hot", columns=["age", "city", "member"])
    wanted = pd.get_dummies(in_pandas(people)[["age", "city", "member"]], columns=["city"], dtype=float)
    wanted = wanted[["age", *sorted(name for name in wanted if name.startswith("city_")), "member"]].to_numpy(float)
    found = lp.PCA(3).fit(str(made.path), engine=spark_engine)
    expected = lp.PCA(3).fit(wanted)
    np.testing.assert_allclose(found.components_, expected.components_, atol=1e-6)
    np.testing.assert_allclose(found.explained_variance_, expected.explained_variance_, rtol=1e-6)


@pytest.fixture(scope="module")
def with_nulls(session):
    return session.createDataFrame(
        [(1, 2.5, "a"), (None, 1.0, "b"), (3, None, None), (4, float("nan"), "a")], "n int, x double, t string"
    ).coalesce(1)


NAN = np.nan


@pytest.mark.parametrize(
    ("nulls", "rows"),
    [
        ("nan", [[1, 2.5, 1, 0], [NAN, 1, 0, 1], [3, NAN, NAN, NAN], [4, NAN, 1, 0]]),
        ("zero", [[1, 2.5, 1, 0], [0, 1, 0, 1], [3, 0, 0, 0], [4, NAN, 1, 0]]),
        ("drop", [[1, 2.5, 1], [4, NAN, 1]]),  # the only 'b' is in a row that is left out
    ],
)
def test_nulls_are_filled_or_their_rows_left_out_and_nan_stays(with_nulls, tmp_path, nulls, rows):
    made = convert_table(with_nulls, tmp_path / "x.npy", nulls=nulls, categories="one-hot")
    np.testing.assert_array_equal(np.load(made.path), rows)
    assert made.n_dropped == (2 if nulls == "drop" else 0)
    record = json.loads(made.columns.read_text())
    assert {one["source"]: one["nulls"] for one in record["columns"]} == {"n": 1, "x": 1, "t": 1}
    assert record["columns"][1]["nan"] == 1 and record["rows_dropped"] == made.n_dropped


def test_nulls_are_refused_by_column_unless_told_otherwise(with_nulls, tmp_path):
    with pytest.raises(lp.DataError, match="t: has nulls: 1 in 'n', 1 in 'x', 1 in 't'. Fill them, nulls='nan'"):
        convert_table(with_nulls, tmp_path / "x.npy", categories="codes", name="t")
    with pytest.raises(lp.DataError, match="column 't' has 1 nulls, and code 0 is its first category"):
        convert_table(with_nulls, tmp_path / "x.npy", categories="codes", nulls="zero")
    assert list(tmp_path.iterdir()) == []


def test_dates_times_and_truth_values_may_have_nulls(session, tmp_path):
    day, time = datetime.date(1970, 1, 11), datetime.datetime(1970, 1, 1, 0, 1, tzinfo=datetime.UTC)
    columns = ["d", "t", "b"]
    frame = session.createDataFrame([(day, time, True), (None, None, None)], "d date, t timestamp, b boolean")
    with pytest.raises(lp.DataError, match="t: has nulls: 1 in 'd', 1 in 't', 1 in 'b'. Fill them, nulls='nan'"):
        convert_table(frame, tmp_path / "raise.npy", columns=columns, name="t")
    for nulls, fill in (("nan", NAN), ("zero", 0)):
        made = convert_table(frame, tmp_path / f"{nulls}.npy", columns=columns, nulls=nulls)
        np.testing.assert_array_equal(np.load(made.path), [[10, 60, 1], [fill] * 3])


def test_lists_vectors_decimals_and_times(session, tmp_path):
    from pyspark.ml.linalg import Vectors
    from pyspark.sql import types

    schema = types.StructType(
        [
            types.StructField("list", types.ArrayType(types.LongType())),
            types.StructField("vector", session.createDataFrame([(Vectors.dense(1.0),)], ["v"]).schema["v"].dataType),
            types.StructField("price", types.DecimalType(10, 2)),
            types.StructField("day", types.DateType()),
            types.StructField("at", types.TimestampType()),
            types.StructField("plain", types.TimestampNTZType()),
        ]
    )
    at = datetime.datetime(2001, 9, 9, 1, 46, 40, 500_000)
    day = datetime.date(1970, 1, 11)
    rows = [
        ([1, 2, 3], Vectors.dense([0.5, 1.5]), decimal.Decimal("12.34"), day, at.replace(tzinfo=datetime.UTC), at),
        ([4, 5, 6], Vectors.sparse(2, {1: 7.0}), decimal.Decimal("-0.10"), day, at.replace(tzinfo=datetime.UTC), at),
    ]
    frame = session.createDataFrame(rows, schema).coalesce(1)
    names = [field.name for field in schema]
    made = convert_table(frame, tmp_path / "x.npy", columns=names)
    same = [10, 1e9 + 0.5, 1e9 + 0.5]
    np.testing.assert_array_equal(np.load(made.path), [[1, 2, 3, 0.5, 1.5, 12.34, *same], [4, 5, 6, 0, 7, -0.1, *same]])
    record = json.loads(made.columns.read_text())["columns"]
    assert [one.get("entry") for one in record] == [0, 1, 2, 0, 1, None, None, None, None]
    assert record[6]["unit"] == "days since 1970-01-01" and record[6]["max"] == 10
    with pytest.raises(lp.DataError, match=r"'day' is a date. Name it among the columns \(--columns\) to"):
        convert_table(frame, tmp_path / "y.npy")


def test_lists_of_several_lengths_are_refused_and_null_lists_filled(session, tmp_path):
    ragged = session.createDataFrame([([1, 2],), ([3],)], "v array<int>")
    with pytest.raises(lp.DataError, match="column 'v' has lists of 1 to 2 entries. Pad or cut them"):
        convert_table(ragged, tmp_path / "x.npy")
    gaps = session.createDataFrame([([1, None],), (None,), ([5, 6],)], "v array<int>").coalesce(1)
    made = convert_table(gaps, tmp_path / "x.npy", nulls="zero")
    np.testing.assert_array_equal(np.load(made.path), [[1, 0], [0, 0], [5, 6]])
    assert made.dtype == np.int8
    dropped = convert_table(gaps, tmp_path / "y.npy", nulls="drop")
    np.testing.assert_array_equal(np.load(dropped.path), [[5, 6]])


def test_labels_keep_their_dtype_and_may_be_dropped_with_their_row(session, tmp_path):
    frame = session.createDataFrame([(1, 2**40), (2, None), (3, -5)], "x int, y bigint").coalesce(1)
    with pytest.raises(lp.DataError, match=r"the label 'y' is null in 1 rows. Leave such rows out \(--nulls drop\)"):
        convert_table(frame, tmp_path / "x.npy", label="y")
    made = convert_table(frame, tmp_path / "x.npy", label="y", nulls="drop")
    assert np.load(made.labels).dtype == np.int64
    assert np.load(made.labels).tolist() == [2**40, -5]
    assert np.load(made.path).tolist() == [[1], [3]]


def test_rows_in_no_fixed_order_are_refused(session, people, tmp_path):
    frame = open_files(session, str(people), None, HEAD)
    for shuffled in (frame.groupBy("age").count(), frame.orderBy("income").select("income")):
        with pytest.raises(lp.DataError, match="frame: its rows come in no fixed order"):
            convert_table(shuffled, tmp_path / "x.npy")
    chosen = convert_table(frame.where("age > 50").select("age"), tmp_path / "x.npy")
    table = in_pandas(people)
    np.testing.assert_array_equal(np.load(chosen.path)[:, 0], table.age[table.age > 50])


def test_a_file_that_grows_between_the_passes_is_refused_and_nothing_is_left(session, tmp_path):
    source = tmp_path / "raw"
    source.mkdir()
    (source / "a.csv").write_text("a,b\n" + "1,2\n" * 1_000)

    def rewrite(event):
        if isinstance(event, StageDone):
            (source / "a.csv").write_text("a,b\n" + "11,22\n" * 600)

    frame = open_files(session, str(source), None, HEAD)
    (tmp_path / "out").mkdir()
    with pytest.raises(lp.DataError, match="changed while it was read"):
        convert_table(frame, tmp_path / "out" / "x.npy", progress=Progress((rewrite,)))
    assert list((tmp_path / "out").iterdir()) == []


def test_progress_tells_both_passes_and_the_session_is_left_as_it_was(session, people, tmp_path):
    events = []
    before = session.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch")
    frame = open_files(session, str(people), None, HEAD)
    convert_table(frame, tmp_path / "x.npy", columns=["age"], name="people", progress=Progress((events.append,)))
    assert [one.title for one in events if isinstance(one, StageStarted)] == ["measure people", "write x.npy"]
    assert any(isinstance(one, TaskDone) for one in events)
    assert session.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch") == before


def test_columns_may_have_any_names(session, tmp_path):
    """Those that passes give to columns of their own, dots, spaces and backticks."""
    names = ["key", "file", "begin", "c1", "c0", "a.b", "a b", "a`b"]
    rows = pd.DataFrame([range(8), range(8, 16)], columns=names)
    pq.write_table(pa.Table.from_pandas(rows), tmp_path / "a.parquet")
    made = convert_table(open_files(session, str(tmp_path / "a.parquet"), None, {}), tmp_path / "x.npy")
    np.testing.assert_array_equal(np.load(made.path), rows.to_numpy())
    assert [field.name for field in made.fields] == names


def columns_of(n):
    return [f"c{i}" for i in range(n)]


def test_more_columns_than_code_is_generated_for(session, tmp_path):
    x = np.random.default_rng(2).integers(-100, 100, (50, 1_500)).astype(np.int32)
    pq.write_table(pa.table({name: x[:, i] for i, name in enumerate(columns_of(1_500))}), tmp_path / "wide.parquet")
    made = convert_table(open_files(session, str(tmp_path / "wide.parquet"), None, {}), tmp_path / "x.npy")
    assert made.dtype == np.int8
    np.testing.assert_array_equal(np.load(made.path), x)


BAD = {
    "unknown column": ({"columns": ["age", "incone"]}, "t: has no column 'incone'; the nearest is 'income'"),
    "unknown label": ({"label": "z"}, "t: has no column 'z'. Its columns are 'age', 'income'"),
    "twice": ({"columns": ["age", "age"]}, "t: column 'age' is named twice"),
    "label among them": ({"columns": ["age"], "label": "age"}, "t: column 'age' is the label, and named among"),
    "text": ({}, r"t: column 'city' is text. Make categories of it, .*--columns age income member\."),
    "many categories": ({"categories": "codes", "max_categories": 3}, "column 'city' has more than 3 categories"),
    "dtype": ({"columns": ["age", "income"], "dtype": "int8"}, "column 'income' has fractions: int8 holds none"),
    "no dtype": ({"dtype": "int64"}, "dtype: 'int64' is not one of"),
    "no mode": ({"nulls": "omit"}, "nulls: 'omit' is not one of raise, nan, zero, drop"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_told_in_one_line(session, people, tmp_path, name):
    options, said = BAD[name]
    frame = open_files(session, str(people), None, HEAD)
    with pytest.raises((lp.DataError, lp.ConfigError), match=said) as told:
        convert_table(frame, tmp_path / "x.npy", **({"name": "t"} | options))
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_targets_that_tasks_cannot_write_are_refused(session, with_nulls, tmp_path):
    with pytest.raises(lp.DataError, match=r"x.zarr: a table is not written to '.zarr'. Write a .npy, and"):
        convert_table(with_nulls, tmp_path / "x.zarr")
    with pytest.raises(lp.DataError, match="Name a folder that all workers share"):
        convert_table(with_nulls, "s3://bucket/x.npy")
    (tmp_path / "x.columns.json").touch()
    with pytest.raises(lp.DataError, match=r"x.columns.json: exists"):
        convert_table(with_nulls, tmp_path / "x.npy")


def test_a_row_that_does_not_fit_the_memory_is_refused(session, tmp_path):
    frame = session.createDataFrame([(list(range(50_000)),)], "v array<int>")
    with pytest.raises(lp.MemoryPlanError, match="a row of 50,000 columns takes 391KiB on its way"):
        convert_table(frame, tmp_path / "x.npy", memory="1MiB")


def test_what_spark_cannot_open_is_told_in_one_line(session, tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no, it is not PAR1")
    (tmp_path / "empty").mkdir()
    table = "no_such_table: there is no such table in Spark's catalog"
    cases = (
        (lambda: open_named(session, "no_such_table"), table),
        (lambda: open_named(session, "no such table"), "is no name of a table"),
        (lambda: open_files(session, "/no/such.csv", None, {}), "/no/such.csv: no such file or directory"),
        (lambda: open_files(session, str(tmp_path / "empty"), None, {}), "its name does not tell its format"),
        (lambda: open_files(session, str(tmp_path / "empty"), "parquet", {}), "holds no parquet files with a schema"),
        (lambda: open_files(session, str(tmp_path / "bad.parquet"), None, {}), "Spark cannot read it: "),
        (
            lambda: open_files(session, "x.avro", None, {}),
            r"--packages org.apache.spark:spark-avro_2.13:4\.\d\.\d",
        ),
        (lambda: open_files(session, "x", "delta", {}), r"--packages io.delta:delta-spark_2.13:VERSION \(its release"),
        (lambda: open_files(session, "x", "parkett", {}), "this Spark has no reader of 'parkett'"),
    )
    for call, said in cases:
        with pytest.raises(lp.DataError, match=said) as told:
            call()
        assert "\n" not in str(told.value)


def test_a_file_that_turns_out_damaged_is_told_in_one_line(session, tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n")
    frame = open_files(session, str(tmp_path / "a.csv"), None, HEAD | {"mode": "FAILFAST"})
    with pytest.raises(lp.DataError, match="Spark cannot read it") as told:
        convert_table(frame, tmp_path / "x.npy")
    assert "\n" not in str(told.value)


def test_an_empty_table_is_refused(session, tmp_path):
    with pytest.raises(lp.DataError, match="frame: is empty, no rows. Check"):
        convert_table(session.createDataFrame([], "a int"), tmp_path / "x.npy")
    nulls = session.createDataFrame([(None,)], "a int")
    with pytest.raises(lp.DataError, match="frame: is empty, no rows: all 1 have a null"):
        convert_table(nulls, tmp_path / "x.npy", nulls="drop")
