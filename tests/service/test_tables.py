"""A table of a catalog that outlives its session, as Spark's configuration names it, through the command line."""

import os
import subprocess
import sys

import numpy as np
from service.clusters import ROOT, needs_java

MAKE = """
import lazypipe as lp

with lp.open_engine("spark", workers=1) as engine:
    engine.session.sql("create database db")
    rows = engine.session.range(1000).selectExpr("id", "id / 8 as x", "id % 3 = 0 as third")
    rows.coalesce(1).write.saveAsTable("db.events")
"""

pytestmark = needs_java


def run(*arguments, folder):
    env = {**os.environ, "SPARK_CONF_DIR": str(folder / "conf"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_table_that_another_session_saved(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "spark-defaults.conf").write_text(
        f"spark.sql.catalogImplementation hive\nspark.sql.warehouse.dir {tmp_path / 'warehouse'}\n"
    )
    run("-c", MAKE, folder=tmp_path)
    table = ("--table", "db.events", "--engine.kind", "spark", "--engine.workers", "1")
    said = run("-m", "jobs", "convert", *table, "--target", "data/events.npy", folder=tmp_path)
    ids = np.arange(1000)
    np.testing.assert_array_equal(
        np.load(tmp_path / "data" / "events.npy"), np.column_stack([ids, ids / 8, ids % 3 == 0])
    )
    assert "data/events.npy: 1,000 x 3 float32" in said
