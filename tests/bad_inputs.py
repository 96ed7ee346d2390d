"""Bad inputs: what is wrong, how it comes about, the command line as it is typed, and the one line that it must say.

test_bad_inputs.py runs them. In a line ``{folder}`` is the folder that the command runs in, and ``...`` stands for any
text: what a library says, or a number that depends on the machine. All else is as it is printed.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

Maker = Callable[[Path], Any]  # what it returns is closed at the end


class Bad(NamedTuple):
    """A command line (less ``python -m``) that must be refused with ``line``, once ``made`` is done in the folder.

    ``made`` are functions of the folder, and command lines that must succeed: a result, or a state, to be there.
    """

    command: str
    line: str
    made: tuple[Maker | str, ...] = ()
    marks: tuple[pytest.MarkDecorator, ...] = ()


# What lies in every folder

ROWS, COLUMNS, SAMPLES = 60, 8, 400
ONES = np.ones((20, 4), np.float32)


def good(folder: Path) -> None:
    """``rows.npy`` (60, 8) with ``y.npy`` of three classes; ``rec.npy`` of two channels with ``spikes.npz``."""
    random = np.random.default_rng(0)
    np.save(folder / "rows.npy", (random.normal(size=(ROWS, COLUMNS)) * np.arange(8, 0, -1) + 3).astype(np.float32))
    np.save(folder / "y.npy", np.arange(ROWS) % 3)
    np.save(folder / "rec.npy", random.integers(-100, 100, (SAMPLES, 2)).astype(np.int16))
    np.savez(folder / "spikes.npz", samples=np.array([50, 100, 120, 200, 310]), units=np.array([1, 1, 2, 2, 1]))


# How what is wrong comes about


def npy(name: str, values: Any) -> Maker:
    return lambda folder: np.save(folder / name, values)


def npz(name: str, **arrays: Any) -> Maker:
    return lambda folder: np.savez(folder / name, **arrays)


def raw(name: str, content: str | bytes) -> Maker:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def inside(name: str) -> Maker:
    """A folder."""
    return lambda folder: (folder / name).mkdir()


def truncated(name: str, n_bytes: int) -> Maker:
    """The file, or the first that fits, without its last bytes."""

    def make(folder: Path) -> None:
        path = min(folder.glob(name))
        path.write_bytes(path.read_bytes()[:-n_bytes])

    return make


def flipped(name: str, at: int) -> Maker:
    """The file with all bits of one byte changed."""

    def make(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[at] ^= 0xFF
        (folder / name).write_bytes(content)

    return make


def entry(value: float, row: int = 7, column: int = 2, source: str = "rows.npy") -> Maker:
    """``bad.npy``: the source with one entry replaced."""

    def make(folder: Path) -> None:
        values = np.load(folder / source).astype(np.float32)
        values[row, column] = value
        np.save(folder / "bad.npy", values)

    return make


def parquet(name: str, **columns: Any) -> Maker:
    def make(folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(columns), folder / name)

    return make


def zarr(name: str, values: np.ndarray) -> Maker:
    """An array in chunks of ten rows."""

    def make(folder: Path) -> None:
        from zarr import create_array

        shape = values.shape
        create_array(str(folder / name), shape=shape, chunks=(10, shape[1]), dtype=values.dtype)[:] = values

    return make


def hdf5(name: str, values: np.ndarray, **attributes: Any) -> Maker:
    def make(folder: Path) -> None:
        from h5py import File

        with File(folder / name, "w") as file:
            file.create_dataset("values", data=values).attrs.update(attributes)

    return make


def without_rights(name: str, rights: int) -> Maker:
    return lambda folder: (folder / name).chmod(rights)


def held(name: str) -> Maker:
    """A state folder that another process works in, which is this one."""

    def make(folder: Path) -> Any:
        (folder / name).mkdir()
        file = open(folder / name / ".lock", "w")  # noqa: SIM115 - closed at the end
        file.write("process 12 of elsewhere")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    return make


def record(name: str, values: Any) -> Maker:
    """A result folder that holds this record alone."""

    def make(folder: Path) -> None:
        (folder / name).mkdir()
        (folder / name / "result.json").write_text(json.dumps(values))

    return make


CSR = {"indptr": [0, 2, 4], "indices": [0, 1, 1, 2], "data": np.ones(4), "shape": [2, 4], "format": b"csr"}
NOT_AS_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")


# Beginnings of command lines

Q = "--engine.kind serial --tracking.enabled false"
PCA = "jobs pca --source rows.npy --n-components 2"
BAD_PCA = "jobs pca --source bad.npy --n-components 2 --tracking.enabled false"
COV = f"jobs covariance --source rows.npy {Q}"
LINEAR = f"jobs linear --source rows.npy {Q}"
BAD_LINEAR = "jobs linear --source bad.npy --tracking.enabled false"
STA = f"jobs sta --spikes spikes.npz {Q}"
REC = f"{STA} --source rec.npy --window -3 2"
INCOMING = f"jobs recordings --folder incoming --window -3 2 {Q}"
LABELLED = f"--source rows.npy --labels y.npy --hold-out 20 {Q}"
SWEEP = f"jobs sweep {LABELLED} --strengths 1 --sizes 20"
MLP = f"jobs mlp {LABELLED} --hidden 4 --batch-size 10 --epochs 1"
RBM = f"jobs rbm --source rows.npy --n-hidden 3 --batch-size 20 --epochs 1 --sample-steps 0 {Q}"
DBN = f"jobs dbn {LABELLED} --hidden 4 --pretraining.visible gaussian"
SCORES = f"jobs transform --source rows.npy --scores s.zarr {Q}"
PREDICT = "jobs predict --source rows.npy --out said.npy"
GENERATE = "jobs generate --target new.npy --n-rows 9 --n-columns 5"
COPY = "jobs convert --source rows.npy"
TABLE = "jobs convert --source a.csv --target new/x.npy"

# What several of them say

DTYPES = "Convert it to one of float16, float32, float64, int8, int16, int32, uint8, bool."
KNOWN = "Known formats: .npy, .npz, .arrow, .feather, .ipc, .parquet, .pq, .zarr, .idx"
IS_NAN = (
    "NaN at row 7, column 2 (first of 1 in its block). Leave such rows out or fill them: PCA and covariance do with "
    "nan='omit' or 'mean' (--nan)."
)
START_OVER = "Pass another --state (state=), or --restart (restart=True) to start over."
NO_SUCH = "no such file or directory. Check the path."
FILE_ABOVE = "cannot be written: a folder of the path is a file. Write elsewhere."
EXISTS = "exists. Pass --overwrite (overwrite=True) to replace it, or another name."
PLANNED = "Name one of pca, covariance, transform, linear, sta, sweep, mlp, rbm, dbn first."
PASSWORD = "holds a password, which would be logged. Leave it out, and set it in the environment (...)."
OF_A_NETWORK = "Pass the result folder of an mlp, dbn or rbm job, or its model.safetensors."
START_MLFLOW = "Start one with `make up` or `mlflow server`, or pass --tracking.enabled false."

JOBS = {
    "a job that there is not": Bad(
        "jobs pac --source rows.npy",
        "ConfigError: pac: no such job; the nearest is 'pca'. Jobs: pca, covariance, transform, sta, ..., log, plan.",
    ),
    "an option in place of a job": Bad("jobs --source rows.npy", "ConfigError: --source: no such job. Jobs: pca, ..."),
    "a job without its source": Bad(
        "jobs pca", "ConfigError: --source: is missing; pass it, or write 'source: ...' in the --config file."
    ),
    "a plan of no job": Bad("jobs plan --source rows.npy", f"ConfigError: --source: cannot be planned. {PLANNED}"),
    "a plan of another job": Bad(
        "jobs plan convert --source rows.npy", f"ConfigError: convert: cannot be planned. {PLANNED}"
    ),
    "a plan of an unknown job": Bad(
        "jobs plan covarianc --source rows.npy",
        f"ConfigError: covarianc: cannot be planned; the nearest is 'covariance'. {PLANNED}",
    ),
    "a plan with a misspelled option": Bad(
        "jobs plan pca --source rows.npy --n-component 2",
        "ConfigError: --n-component: unknown option; the nearest is '--n-components'. See python -m jobs plan pca "
        "--help.",
    ),
    "a plan that does not fit": Bad(
        "jobs plan covariance --source many.npy --engine.memory 32MiB",
        "MemoryPlanError: {folder}/many.npy: covariance needs ... of arrays at least: ... a task, ... of state, "
        "... on the driver; the budget is 32MiB. It fits in memory='...'; or write tiles to disk (out='cov.zarr'; "
        "--tiles cov.zarr): the answer alone is columns x columns x 8 bytes.",
        (npy("many.npy", np.zeros((10, 4000), np.float32)),),
    ),
}

OPTIONS = {
    "an option far from all": Bad(
        f"{PCA} --window -1 1", "ConfigError: --window: unknown option. See python -m jobs pca --help."
    ),
    "a misspelled option": Bad(
        f"{PCA} --n_component 3",
        "ConfigError: --n-component: unknown option; the nearest is '--n-components'. See python -m jobs pca --help.",
    ),
    "an option without its value": Bad(
        f"{PCA} --seed", "ConfigError: argument --seed: expected one argument. See python -m jobs pca --help."
    ),
    "a stray word": Bad(f"{PCA} 3", "ConfigError: 3: unexpected argument. See python -m jobs pca --help."),
    "a value that is empty": Bad(
        "jobs pca --source=", "ConfigError: --source: is empty; give a value, or leave it out."
    ),
    "a fraction for a count": Bad(
        "jobs pca --source rows.npy --n-components 2.5",
        "ConfigError: --n-components: '2.5': input should be a valid integer.",
    ),
    "a count of none": Bad(
        "jobs pca --source rows.npy --n-components 0",
        "ConfigError: --n-components: '0': input should be greater than or equal to 1.",
    ),
    "fewer passes than deflation takes": Bad(
        f"jobs plan pca --source rows.npy --n-components 4 {Q} --solver deflation --max-passes 8",
        "ConfigError: max_passes: 8 is too few for deflation of n_components=4 of {folder}/rows.npy. Give 9 or more, "
        "or leave it out.",
    ),
    "fewer passes than any solver takes": Bad(
        f"{PCA} --max-passes 2",
        "ConfigError: --max-passes: '2': input should be greater than or equal to 3.",
    ),
    "a word for a number": Bad(f"{PCA} --tol small", "ConfigError: --tol: 'small': input should be a valid number."),
    "NaN for a number": Bad(f"{PCA} --tol nan", "ConfigError: --tol: 'nan': input should be less than 1."),
    "a word for a truth value": Bad(
        f"{PCA} --center maybe", "ConfigError: --center: 'maybe' is neither true nor false."
    ),
    "a word that is no choice": Bad(f"{PCA} --nan drop", "ConfigError: --nan: 'drop' is not one of raise, omit, mean."),
    "two options that exclude each other": Bad(
        f"{PCA} --reuse --state st --restart",
        "ConfigError: reuse: with restart, which asks to compute anew. Give one of the two.",
    ),
    "a restart of no state": Bad(
        f"{PCA} --restart",
        "ConfigError: --restart: there is no state to forget. Give state= (--state), or leave restart out.",
    ),
    "an engine of no kind": Bad(
        f"{PCA} --engine.kind sprak", "ConfigError: --engine.kind: 'sprak' is not one of serial, dask, spark."
    ),
    "no workers": Bad(
        f"{PCA} --engine.workers 0",
        "ConfigError: --engine.workers: '0': input should be greater than or equal to 1.",
    ),
    "an address of no cluster": Bad(
        f"{PCA} {Q} --engine.address tcp://127.0.0.1:9",
        "ConfigError: engine: serial has no address (tcp://127.0.0.1:9). Leave it out, or use dask or spark.",
    ),
    "an address where nobody listens": Bad(
        f"{PCA} --tracking.enabled false --engine.address tcp://127.0.0.1:9",
        "EngineError: dask: no scheduler answers at tcp://127.0.0.1:9 (ConnectionRefusedError). Start one with "
        "`dask scheduler`, or leave the address out to work on this machine.",
    ),
    "an address that is none of Dask's": Bad(
        f"{PCA} --tracking.enabled false --engine.address http://127.0.0.1:9",
        "RefusedError: dask: http://127.0.0.1:9 is no address of a scheduler. Write it as tcp://host:8786.",
    ),
    "an address that is none of Spark's": Bad(
        f"{PCA} --tracking.enabled false --engine.kind spark --engine.address tcp://127.0.0.1:9",
        "RefusedError: spark: tcp://127.0.0.1:9 is no master. Write it as spark://host:7077, or yarn.",
    ),
    "a master where nobody listens": Bad(
        f"{PCA} --tracking.enabled false --engine.kind spark --engine.address spark://127.0.0.1:9",
        "EngineError: spark: nobody listens at spark://127.0.0.1:9. Start a master there, or leave the address out to "
        "work on this machine.",
    ),
    "memory in words": Bad(
        f"{PCA} --engine.memory lots",
        "ConfigError: --engine.memory: 'lots' is no size. Write it as 512MiB, 2GiB or 4GB.",
    ),
    "memory without end": Bad(
        f"{PCA} --engine.memory 1e999GiB",
        "ConfigError: --engine.memory: '1e999GiB' is no size. Write it as 512MiB, 2GiB or 4GB.",
    ),
    "memory below zero": Bad(
        f"{PCA} --engine.memory=-2GiB",
        "ConfigError: --engine.memory: '-2GiB' is no size. Write it as 512MiB, 2GiB or 4GB.",
    ),
    "too little memory": Bad(
        f"{PCA} --engine.memory 1MiB",
        "ConfigError: memory: 1MiB is too small to work in. Give at least 16MiB.",
    ),
    "a plan on paper with no memory": Bad(
        "jobs plan covariance --shape 1000 100000 --engine.memory 0",
        "ConfigError: memory: 0 is too small to work in. Give at least 16MiB.",
    ),
    "a password in an address": Bad(
        f"{PCA} --tracking.uri http://me:open-sesame@host:5000", f"ConfigError: --tracking.uri: {PASSWORD}"
    ),
    "a password in a source": Bad(
        "jobs covariance --source s3://me:open-sesame@bucket/x.npy", f"ConfigError: --source: {PASSWORD}"
    ),
    "a store of no kind": Bad(
        f"{PCA} --engine.kind serial --tracking.uri foo://x",
        "ConfigError: tracking.uri: 'foo://x' is no tracking store. Write it as one of sqlite, http, https, "
        "postgresql, mysql, mssql://...",
    ),
    "a store in no folder": Bad(
        f"{PCA} --engine.kind serial --tracking.uri sqlite:///no/mlflow.db",
        "ConfigError: sqlite:///no/mlflow.db: no such folder {folder}/no. Make it, or change --tracking.uri.",
    ),
    "a store that is a folder": Bad(
        f"{PCA} --engine.kind serial --tracking.uri sqlite:///new",
        "ConfigError: sqlite:///new: is a folder. Name a file in it, or change --tracking.uri.",
        (inside("new"),),
    ),
    "a store that is kept nowhere": Bad(
        f"{PCA} --engine.kind serial --tracking.uri sqlite://",
        "ConfigError: sqlite://: names no file. Write it as sqlite:///FILE (--tracking.uri).",
    ),
    "a store that does not answer": Bad(
        f"{PCA} --engine.kind serial --tracking.uri http://127.0.0.1:9",
        "EngineError: http://127.0.0.1:9: no MLflow store answers ([Errno 111] Connection refused). " + START_MLFLOW,
    ),
    "a database that does not answer": Bad(
        f"{PCA} --engine.kind serial --tracking.uri postgresql://127.0.0.1:9/x",
        "EngineError: postgresql://127.0.0.1:9/x: no MLflow store answers ([Errno 111] Connection refused). "
        + START_MLFLOW,
    ),
}

FILES = {
    "no config file": Bad(
        "jobs pca --config no.yaml", "ConfigError: no.yaml: cannot be read: No such file or directory. Check the path."
    ),
    "no engine file": Bad(
        f"{PCA} --engine no.yaml", "ConfigError: no.yaml: cannot be read: No such file or directory. Check the path."
    ),
    "a folder for a config file": Bad(
        "jobs pca --config new", "ConfigError: new: cannot be read: Is a directory. Check the path.", (inside("new"),)
    ),
    "a config file of bytes": Bad(
        "jobs pca --config c.yaml",
        "ConfigError: c.yaml: cannot be read: not UTF-8 text. Check the path.",
        (raw("c.yaml", b"\xff\xfe\0"),),
    ),
    "YAML that does not parse": Bad(
        "jobs pca --config c.yaml",
        "ConfigError: c.yaml: is not YAML at line 2, column 5: expected ',' or ']', but got ':'.",
        (raw("c.yaml", "source: [rows.npy\nseed: 1"),),
    ),
    "YAML with a name that is there twice": Bad(
        "jobs pca --config c.yaml",
        "ConfigError: c.yaml: is not YAML at line 2, column 1: source is there twice.",
        (raw("c.yaml", "source: a.npy\nsource: b.npy\n"),),
    ),
    "YAML with a path that holds a NUL": Bad(
        "jobs pca --config c.yaml",
        "ConfigError: c.yaml: source: holds a NUL character, which no path or name can have. Take it out.",
        (raw("c.yaml", 'source: "a\\0b.npy"\n'),),
    ),
    "YAML that lies in itself": Bad(
        "jobs pca --config c.yaml",
        "ConfigError: c.yaml: a value in it lies in itself, or too deep in others. Write it flatter.",
        (raw("c.yaml", "engine: &a\n  kind: *a\n"),),
    ),
    "YAML of a list": Bad(
        "jobs pca --config c.yaml",
        "ConfigError: c.yaml: must hold 'name: value' lines, found a list.",
        (raw("c.yaml", "- rows.npy"),),
    ),
    "YAML of a number for a name": Bad(
        "jobs pca --config c.yaml",
        "ConfigError: c.yaml: 1 is no name. Write 'name: value' lines.",
        (raw("c.yaml", "1: rows.npy"),),
    ),
    "YAML with an unknown name": Bad(
        "jobs pca --config c.yaml",
        "ConfigError: c.yaml: n_componets: unknown name; the nearest is 'n_components'.",
        (raw("c.yaml", "source: rows.npy\nn_componets: 3"),),
    ),
    "YAML with an unknown name below another": Bad(
        "jobs pca --config c.yaml",
        "ConfigError: c.yaml: engine.kid: unknown name; the nearest is 'kind'.",
        (raw("c.yaml", "source: rows.npy\nengine: {kid: dask}"),),
    ),
    "the YAML of another job": Bad(
        f"jobs covariance --config c.yaml {Q}",
        "ConfigError: c.yaml: n_components, solver: unknown names; is it the config of another job? --help lists those "
        "of this one.",
        (raw("c.yaml", "source: rows.npy\nn_components: 3\nsolver: gram"),),
    ),
    "YAML with two unknown names below another": Bad(
        "jobs pca --config c.yaml",
        "ConfigError: c.yaml: engine.foo, bar: unknown names; known: kind, address, memory, workers.",
        (raw("c.yaml", "source: rows.npy\nn_components: 3\nengine: {foo: 1, bar: 2}"),),
    ),
    "YAML with a word that is no choice": Bad(
        "jobs pca --config c.yaml",
        "ConfigError: c.yaml: engine.kind: 'sprak' is not one of serial, dask, spark.",
        (raw("c.yaml", "source: rows.npy\nengine: {kind: sprak}"),),
    ),
    "YAML with a word for a mapping": Bad(
        "jobs pca --config c.yaml",
        "ConfigError: c.yaml: engine: 'dask' is no mapping; its names are kind, address, memory, workers.",
        (raw("c.yaml", "source: rows.npy\nengine: dask"),),
    ),
    "YAML with two wrong types": Bad(
        "jobs pca --config c.yaml",
        "ConfigError: c.yaml: source: 2020-01-01 is no text; put it in quotes; c.yaml: n_components: 'many': input "
        "should be a valid integer.",
        (raw("c.yaml", "source: 2020-01-01\nn_components: many"),),
    ),
    "YAML with a bad entry of what may be a list or a word": Bad(
        "jobs sta --config c.yaml",
        "ConfigError: c.yaml: source: 3 is no text; put it in quotes.",
        (raw("c.yaml", "source: [rec.npy, 3]\nspikes: spikes.npz\nwindow: [-3, 2]"),),
    ),
    "YAML with a bad entry of a list": Bad(
        "jobs mlp --config c.yaml",
        "ConfigError: c.yaml: hidden: 0: input should be greater than or equal to 1.",
        (raw("c.yaml", "source: rows.npy\nlabels: y.npy\nhidden: [9, 0]"),),
    ),
    "an engine file with an unknown name": Bad(
        f"{PCA} --engine e.yaml",
        "ConfigError: e.yaml: engine.wrokers: unknown name; the nearest is 'workers'.",
        (raw("e.yaml", "kind: dask\nwrokers: 3"),),
    ),
}

SOURCES = {
    "no source": Bad("jobs pca --source no.npy", f"DataError: {{folder}}/no.npy: {NO_SUCH}"),
    "a folder without data": Bad(
        "jobs pca --source new",
        "DataError: {folder}/new: is a directory without data. Pass a directory of .parquet parts, a Zarr array, or "
        "one file (...).",
        (inside("new"),),
    ),
    "a table of text": Bad(
        "jobs pca --source bad.csv",
        f"DataError: {{folder}}/bad.csv: unknown suffix '.csv'. {KNOWN}. A table is converted first: python -m jobs "
        "convert --format csv.",
        (raw("bad.csv", "1,2\n"),),
    ),
    "a suffix of no format": Bad(
        "jobs pca --source bad.h5",
        f"DataError: {{folder}}/bad.h5: unknown suffix '.h5'. {KNOWN}.",
        (hdf5("bad.h5", ONES),),
    ),
    "a scheme of no store": Bad(
        "jobs pca --source ftp://host/x.npy",
        "DataError: ftp://host/x.npy: cannot read from ftp://. Use one of s3://, ..., or a local path.",
    ),
    "s3 without a bucket": Bad(
        "jobs pca --source s3://", "DataError: s3://: names no object. Write it as s3://bucket/name."
    ),
    "s3 without an object": Bad(
        "jobs pca --source s3://bucket", "DataError: s3://bucket: names no object. Write it as s3://bucket/name."
    ),
    "a store whose package is not installed": Bad(
        f"{PCA} {Q} --source gs://bucket/x.npy",
        "DataError: gs://bucket/x.npy: gs:// needs a package that is not installed. pip install 'gcsfs'.",
        marks=(pytest.mark.skipif(find_spec("gcsfs") is not None, reason="gcsfs is installed"),),
    ),
    "no right to read": Bad(
        "jobs pca --source rows.npy",
        "DataError: {folder}/rows.npy: cannot be read: no right to. Change its rights, or pass another.",
        (without_rights("rows.npy", 0),),
        (NOT_AS_ROOT,),
    ),
    "a file of other bytes": Bad(
        BAD_PCA,
        "DataError: {folder}/bad.npy: is not a readable .npy file (...). Write it again.",
        (raw("bad.npy", b"garbage" * 99),),
    ),
    "a file of no bytes": Bad(
        BAD_PCA,
        "DataError: {folder}/bad.npy: is not a readable .npy file (...). Write it again.",
        (raw("bad.npy", b""),),
    ),
    "a truncated file": Bad(
        BAD_PCA,
        "DataError: {folder}/bad.npy: is truncated: 443 bytes, its header says 448. Write or copy it again.",
        (npy("bad.npy", ONES), truncated("bad.npy", 5)),
    ),
    "complex numbers": Bad(
        BAD_PCA,
        f"DataError: {{folder}}/bad.npy: holds dtype complex128. {DTYPES}",
        (npy("bad.npy", ONES.astype(complex)),),
    ),
    "Python objects": Bad(
        BAD_PCA,
        f"DataError: {{folder}}/bad.npy: holds text or objects (dtype object). {DTYPES}",
        (npy("bad.npy", ONES.astype(object)),),
    ),
    "text": Bad(
        BAD_PCA,
        f"DataError: {{folder}}/bad.npy: holds text or objects (dtype str96). {DTYPES}",
        (npy("bad.npy", ONES.astype("U3")),),
    ),
    "one dimension": Bad(
        BAD_PCA,
        "DataError: {folder}/bad.npy: has 1 dimension (4,). Reshape it to (n_rows, n_columns), for instance with "
        "array.reshape(1, -1) or array.reshape(-1, 1).",
        (npy("bad.npy", ONES[0]),),
    ),
    "three dimensions": Bad(
        BAD_PCA,
        "DataError: {folder}/bad.npy: has 3 dimensions (1, 20, 4). Reshape it to (n_rows, n_columns).",
        (npy("bad.npy", ONES[None]),),
    ),
    "no rows": Bad(
        BAD_PCA,
        "DataError: {folder}/bad.npy: is empty: no rows, shape (0, 4). Check what wrote it.",
        (npy("bad.npy", ONES[:0]),),
    ),
    "no columns": Bad(
        BAD_PCA,
        "DataError: {folder}/bad.npy: is empty: no columns, shape (20, 0). Check what wrote it.",
        (npy("bad.npy", ONES[:, :0]),),
    ),
    "a named column of what has none": Bad(
        f"{PCA} --column a",
        "DataError: {folder}/rows.npy: a .npy file has no named columns. Leave out column='a'.",
    ),
    "a damaged Parquet file": Bad(
        "jobs pca --source bad.parquet",
        "DataError: {folder}/bad.parquet: is a damaged Parquet file (...). Write or copy it again.",
        (parquet("bad.parquet", x=[1.0, 2.0]), truncated("bad.parquet", 9)),
    ),
    "a Parquet column of text": Bad(
        "jobs pca --source bad.parquet",
        "DataError: {folder}/bad.parquet: column 'a' has type string, which is no number. Leave it out, convert it, "
        "or name the column of features with column=.",
        (parquet("bad.parquet", a=["x", "y"]),),
    ),
    "a Parquet column with a null": Bad(
        f"jobs covariance --source bad.parquet {Q}",
        "DataError: {folder}/bad.parquet: missing value (null) at row 1, column 'a'. Fill it or leave the row out.",
        (parquet("bad.parquet", a=[1.0, None, 2.0]),),
    ),
    "Parquet rows of several lengths": Bad(
        f"jobs covariance --source bad.parquet {Q}",
        "DataError: {folder}/bad.parquet: row 1 of column 'a' has 1 entries where others have 2. Pad or cut the "
        "lists to one length.",
        (parquet("bad.parquet", a=[[1.0, 2.0], [3.0], [4.0, 5.0]]),),
    ),
    "a damaged Arrow file": Bad(
        "jobs pca --source bad.arrow",
        "DataError: {folder}/bad.arrow: is a damaged or truncated Arrow file (...). Write or copy it again.",
        (raw("bad.arrow", b"ARROW1\0\0" + b"x" * 90),),
    ),
    "a damaged Zarr array": Bad(
        "jobs pca --source bad.zarr",
        "DataError: {folder}/bad.zarr: is not a readable Zarr array (...). Write or copy it again.",
        (inside("bad.zarr"), raw("bad.zarr/zarr.json", "{")),
    ),
    "a truncated chunk of a Zarr array": Bad(
        f"jobs covariance --source bad.zarr {Q}",
        "DataError: {folder}/bad.zarr: rows ... cannot be decoded (...). Write or copy the array again.",
        (zarr("bad.zarr", ONES), truncated("bad.zarr/c/0/0", 7)),
    ),
    "a truncated IDX file": Bad(
        "jobs pca --source bad.idx",
        "DataError: {folder}/bad.idx: is truncated: 22 bytes, its header says 93. Write or copy it again.",
        (raw("bad.idx", b"\0\0\x08\x02\0\0\0\x09\0\0\0\x09" + b"x" * 10),),
    ),
    "a damaged .npz file": Bad(
        "jobs pca --source bad.npz",
        "DataError: {folder}/bad.npz: is a damaged .npz file (...). Save or copy it again.",
        (npz("bad.npz", **CSR), truncated("bad.npz", 30)),
    ),
    "an .npz file of no matrix": Bad(
        "jobs pca --source bad.npz",
        "DataError: {folder}/bad.npz: holds a, which is no sparse matrix. Save one with scipy.sparse.save_npz, or one "
        "array with numpy.save.",
        (npz("bad.npz", a=ONES),),
    ),
    "sparse rows with an index outside": Bad(
        f"jobs covariance --source bad.npz {Q}",
        "DataError: {folder}/bad.npz: row 0, entry 1, has index 9, outside the 4 columns. Indices count from 0: "
        "correct them, or the number of columns, where it was written.",
        (npz("bad.npz", **CSR | {"indices": [0, 9, 1, 2]}),),
    ),
    "NaN": Bad(BAD_PCA, f"DataError: {{folder}}/bad.npy: {IS_NAN}", (entry(np.nan),)),
    "NaN in this process": Bad(
        f"{BAD_PCA} --engine.kind serial", f"DataError: {{folder}}/bad.npy: {IS_NAN}", (entry(np.nan),)
    ),
    "infinity": Bad(
        BAD_PCA,
        "DataError: {folder}/bad.npy: infinity at row 7, column 2 (first of 1 in its block). Remove it.",
        (entry(np.inf),),
    ),
    "nothing but NaN": Bad(
        f"jobs covariance --source bad.npy --nan omit {Q}",
        "DataError: {folder}/bad.npy: 5 of 5 rows hold a NaN and were left out; too few are left for ddof=1. Pass "
        "nan='mean' (--nan mean) to fill the gaps instead.",
        (npy("bad.npy", np.full((5, 3), np.nan)),),
    ),
    "constant columns": Bad(
        BAD_PCA,
        "DataError: {folder}/bad.npy: every column is constant, so there is no variance to explain. Check what wrote "
        "it.",
        (npy("bad.npy", ONES),),
    ),
    "more components than the rank": Bad(
        BAD_PCA,
        "DataError: {folder}/bad.npy: n_components=2 is more than the rank: only 1 components have variance above "
        "rounding. Ask for n_components <= 1.",
        (npy("bad.npy", np.outer(np.arange(20.0), np.arange(1.0, 5.0)).astype(np.float32)),),
    ),
    "more components than columns": Bad(
        f"jobs pca --source rows.npy --n-components 9 {Q}",
        "PlanError: {folder}/rows.npy: n_components=9 is more than the rank, which is at most 8 for 60 rows x 8 "
        "columns. Ask for n_components <= 8.",
    ),
    "a single row": Bad(
        BAD_PCA,
        "PlanError: {folder}/bad.npy: 1 row has no variance. Give two rows or more.",
        (npy("bad.npy", ONES[:1]),),
    ),
    "weights of other rows": Bad(
        f"{PCA} {Q} --row-weights w.npy",
        "DataError: row_weights w.npy: shape (3,), but {folder}/rows.npy has 60 rows. Give one weight a row.",
        (npy("w.npy", np.ones(3)),),
    ),
    "weights that are no file of numbers": Bad(
        f"{PCA} {Q} --row-weights w.npy",
        "DataError: row_weights w.npy: is not a readable .npy file (...). Write it again.",
        (raw("w.npy", b"garbage" * 9),),
    ),
    "weights of an empty file": Bad(
        f"{PCA} {Q} --row-weights w.npy",
        "DataError: row_weights w.npy: is not a readable .npy file (No data left in file). Write it again.",
        (raw("w.npy", b""),),
    ),
    "weights of a torn archive": Bad(
        f"{COV} --row-weights w.npy",
        "DataError: row_weights w.npy: is not a readable .npy file (File is not a zip file). Write it again.",
        (raw("w.npy", b"PK\x03\x04"),),
    ),
    "weights below zero": Bad(
        f"{PCA} {Q} --row-weights w.npy",
        "DataError: row_weights w.npy: entry 0 is negative (-1; first of 60). Give weights of 0 or above.",
        (npy("w.npy", -np.ones(ROWS)),),
    ),
}

OUTPUTS = {
    "an output that exists": Bad(f"{PCA} --out rows.npy", f"DataError: rows.npy: {EXISTS}"),
    "an output that is no result": Bad(
        f"{PCA} --out . --overwrite",
        "DataError: .: is no result of a job (it holds no result.json), so it is not replaced. Write elsewhere.",
    ),
    "an output without a name": Bad(f"{PCA} --out=", "ConfigError: --out: is empty; give a value, or leave it out."),
    "an output below a file": Bad(f"{PCA} --out rows.npy/deep/new", f"DataError: rows.npy/deep/new: {FILE_ABOVE}"),
    "a plan of an output below a file": Bad(
        f"jobs plan {PCA.removeprefix('jobs ')} --out rows.npy/new", f"DataError: rows.npy/new: {FILE_ABOVE}"
    ),
    "an output of a long name": Bad(
        f"{PCA} --out {'x' * 250}",
        f"DataError: {'x' * 250}: cannot be written: a name of the path is too long. Shorten it.",
    ),
    "an output where nothing may be written": Bad(
        f"{PCA} --out new/out",
        "DataError: new/out: cannot be written: no right to write here. Write elsewhere or change the rights.",
        (inside("new"), without_rights("new", 0o555)),
        (NOT_AS_ROOT,),
    ),
    "an output to a store that is read": Bad(
        f"{PCA} --out http://host/x",
        "DataError: http://host/x: http:// is only read. Write to a local path, or to s3://.",
    ),
    "scores to no known format": Bad(
        f"{PCA} {Q} --scores s.csv", "DataError: {folder}/s.csv: cannot write '.csv'. Use .zarr or .parquet."
    ),
    "scores that exist": Bad(f"{PCA} {Q} --scores s.zarr", f"DataError: s.zarr: {EXISTS}", (inside("s.zarr"),)),
    "scores in place of something else": Bad(
        f"{PCA} {Q} --scores s.zarr --overwrite",
        "DataError: {folder}/s.zarr: is no store of scores, so it is not replaced. Write elsewhere.",
        (inside("s.zarr"), raw("s.zarr/letter.txt", "keep")),
    ),
    "a state in the result": Bad(
        f"{PCA} --state new/state --out new",
        "ConfigError: state: new/state lies in the result folder new, which is put in place whole. Name one beside it.",
    ),
    "a source in the result": Bad(
        f"jobs covariance --source pca/components.npy --out pca --overwrite {Q}",
        "ConfigError: source: pca/components.npy lies in the result folder pca, which would replace it. Move one.",
        (f"{PCA} {Q} --out pca",),
    ),
    "a state in a store of objects": Bad(
        f"{PCA} {Q} --state s3://bucket/state",
        "DataError: s3://bucket/state: cannot hold a state: one run at a time locks its folder, and object stores "
        "have no locks. Pass a local folder as --state (state=).",
    ),
    "a state on a file": Bad(
        f"{PCA} {Q} --state rows.npy",
        "DataError: {folder}/rows.npy: cannot hold a state (it is a file). Pass another --state.",
    ),
    "a state of something else": Bad(
        f"{PCA} {Q} --state st",
        "DataError: {folder}/st: holds other files (letter.txt), so it is no state. Pass another --state.",
        (inside("st"), raw("st/letter.txt", "keep")),
    ),
    "a state that another process holds": Bad(
        f"{PCA} {Q} --state st",
        "DataError: {folder}/st: another run holds this state (process 12 of elsewhere). Wait for it, or pass another "
        "--state.",
        (held("st"),),
    ),
    "a state of another config": Bad(
        f"jobs pca --source rows.npy --n-components 3 {Q} --state st",
        f"DataError: {{folder}}/st/fitted.state: was made with n_components 2, this run has 3. {START_OVER}",
        (f"{PCA} {Q} --out first --state st",),
    ),
    "a state of other data": Bad(
        f"{COV} --state st",
        f"DataError: {{folder}}/st/covariance.state: was made with n_columns 8, this run has 4. {START_OVER}",
        (f"{COV} --out first --state st", npy("rows.npy", ONES)),
    ),
    "a torn state": Bad(
        f"{COV} --state st",
        "DataError: {folder}/st/covariance.state: is torn, or no state of lazypipe (it does not end as one). "
        + START_OVER,
        (f"{COV} --out first --state st", truncated("st/covariance.state", 100)),
    ),
    "tiles to no known format": Bad(
        f"{COV} --tiles c.npy",
        "ConfigError: out (--tiles): 'c.npy' is no .zarr, which tiles are written to. Name it cov.zarr.",
    ),
    "tiles in the result": Bad(
        f"{COV} --tiles new/c.zarr --out new",
        "ConfigError: tiles: new/c.zarr lies in the result folder new, which is put in place whole. Name one beside "
        "it.",
    ),
    "tiles below a file": Bad(f"{COV} --tiles rows.npy/c.zarr", f"DataError: rows.npy/c.zarr: {FILE_ABOVE}"),
    "tiles with a state": Bad(
        f"jobs plan {COV.removeprefix('jobs ')} --tiles c.zarr --state st",
        "ConfigError: state: tiles (out=, --tiles) keep their own state in the store. Leave state out.",
    ),
}

STATISTICS = {
    "a state of what every row changes": Bad(
        f"jobs plan {COV.removeprefix('jobs ')} --nan mean --state st",
        "ConfigError: nan: 'mean' fills in other values with every new row, so nothing saved stays true. Use "
        "nan='omit', or leave state out.",
    ),
    "a state of what every row changes, of components": Bad(
        f"jobs plan {PCA.removeprefix('jobs ')} {Q} --solver covariance --nan mean --state st",
        "ConfigError: nan: 'mean' fills in other values with every new row, so nothing saved stays true. Use "
        "nan='omit', or leave state out.",
    ),
    "a divisor of no rows": Bad(
        f"{COV} --ddof 60",
        "PlanError: {folder}/rows.npy: ddof=60 with 60 rows would divide by zero or less. Use a smaller ddof or more "
        "rows.",
    ),
    "covariance of a budget too small": Bad(
        "jobs covariance --source many.npy --tracking.enabled false --engine.memory 32MiB",
        "MemoryPlanError: {folder}/many.npy: covariance needs ... the budget is 32MiB. It fits in memory='...",
        (npy("many.npy", np.zeros((10, 4000), np.float32)),),
    ),
    "a regression on nothing": Bad(
        LINEAR, "ConfigError: --target: is missing; pass it, or write 'target: ...' in the --config file."
    ),
    "a target beyond the columns": Bad(
        f"{LINEAR} --target 8",
        "ConfigError: y (--target): {folder}/rows.npy has no column 8. Give 0 to 7, or a source of one column.",
    ),
    "a target that is missing": Bad(f"{LINEAR} --target no.npy", f"DataError: {{folder}}/no.npy: {NO_SUCH}"),
    "a residual variance of no rows": Bad(
        f"{LINEAR} --target 0 --ddof 60",
        "PlanError: {folder}/rows.npy: ddof=60 with 60 rows...",
    ),
    "a target of several columns": Bad(
        f"{LINEAR} --target rows.npy",
        "DataError: {folder}/rows.npy: has 8 columns, y must have one. Select it, or pass the index of a column of X.",
    ),
    "a target of other rows": Bad(
        f"{LINEAR} --target t.npy",
        "DataError: {folder}/t.npy: has 3 rows, {folder}/rows.npy has 60. Give two sources with the same rows.",
        (npy("t.npy", np.arange(3.0)),),
    ),
    "a target of text": Bad(
        f"{LINEAR} --target t.npy",
        f"DataError: {{folder}}/t.npy: holds text or objects (dtype str32). {DTYPES}",
        (npy("t.npy", np.array(["a"] * ROWS)),),
    ),
    "a negative penalty": Bad(
        f"{LINEAR} --target 0 --ridge -1", "ConfigError: --ridge: '-1': input should be greater than or equal to 0."
    ),
    "an infinite penalty": Bad(
        f"{LINEAR} --target 0 --ridge inf", "ConfigError: --ridge: 'inf': input should be a finite number."
    ),
    "half a validation": Bad(
        f"{LINEAR} --target y.npy --validation-source rows.npy",
        "ConfigError: --validation-target: is missing; give the target of the validation_source.",
    ),
    "the other half of a validation": Bad(
        f"{LINEAR} --target 0 --validation-target 0",
        "ConfigError: --validation-target: has no validation_source; give both, or neither.",
    ),
    "a validation of other columns": Bad(
        f"{LINEAR} --target 0 --validation-source narrow.npy",
        "DataError: {folder}/narrow.npy: 3 feature columns for validation, but {folder}/rows.npy has 7. Give rows of "
        "the same columns.",
        (npy("narrow.npy", ONES),),
    ),
    "NaN in a regression": Bad(
        f"{BAD_LINEAR} --target 0", f"DataError: {{folder}}/bad.npy: {IS_NAN}", (entry(np.nan),)
    ),
    "a regression on constants": Bad(
        f"{BAD_LINEAR} --target 0",
        "DataError: {folder}/bad.npy: columns 1, 2, 3 are constant...",
        (npy("bad.npy", ONES),),
    ),
    "a regression on copies": Bad(
        f"{BAD_LINEAR} --target 0",
        "DataError: {folder}/bad.npy: linear combinations of other columns, to the rounding of float32: column 2 of "
        "column 1; column 3 of column 1. Drop them, or pass a ridge above 0.",
        (npy("bad.npy", np.outer(np.arange(20.0), np.arange(1.0, 5.0)).astype(np.float32)),),
    ),
    "more parameters than rows": Bad(
        f"{BAD_LINEAR} --target t.npy",
        "PlanError: {folder}/bad.npy: 4 parameters cannot be told from 3 rows. Give more rows, drop columns, or pass a "
        "ridge above 0.",
        (npy("bad.npy", np.eye(3)), npy("t.npy", np.arange(3.0))),
    ),
    "scores of no model": Bad(
        f"{SCORES} --model no",
        "DataError: no: is no result of a pca job (it holds no result.json). Pass the folder of one.",
    ),
    "scores of a network": Bad(
        f"{SCORES} --model net",
        "DataError: net: is a result of the job mlp, not of pca. Pass the folder of a pca result.",
        (f"{MLP} --out net",),
    ),
    "scores of a damaged model": Bad(
        f"{SCORES} --model pca",
        "DataError: pca: is a damaged result of a pca job (...). Run the job again.",
        (f"{PCA} {Q} --out pca", truncated("pca/components.npy", 10)),
    ),
    "scores of a model that is empty": Bad(
        f"{SCORES} --model pca",
        "DataError: pca: is a damaged result of a pca job (No data left in file). Run the job again.",
        (f"{PCA} {Q} --out pca", raw("pca/components.npy", b"")),
    ),
    "scores of a model of another width": Bad(
        f"jobs transform --source narrow.npy --scores s.zarr {Q} --model pca",
        "DataError: {folder}/narrow.npy: 4 columns, but the components have 8. Give rows of the same columns.",
        (f"{PCA} {Q} --out pca", npy("narrow.npy", ONES)),
    ),
    "a scaled matrix of NaN": Bad(
        f"jobs transform --source bad.npy --scores s.zarr {Q} --model pca",
        f"DataError: {{folder}}/bad.npy: {IS_NAN}",
        (f"{PCA} {Q} --out pca", entry(np.nan)),
    ),
}

RECORDINGS = {
    "no spikes": Bad(f"{REC} --spikes no.npz", f"DataError: {{folder}}/no.npz: {NO_SUCH}"),
    "damaged spikes": Bad(
        REC,
        "DataError: {folder}/spikes.npz: is a damaged .npz file (...). Save or copy it again.",
        (truncated("spikes.npz", 30),),
    ),
    "spikes out of order": Bad(
        REC,
        "DataError: {folder}/spikes.npz: spike 1: sample 20 comes after sample 50. Sort the spikes of each unit by "
        "time.",
        (npz("spikes.npz", samples=[50, 20]),),
    ),
    "spikes before the recording": Bad(
        REC,
        "DataError: {folder}/spikes.npz: spike 0: sample -50 is negative. Samples count from 0, the first of the "
        "recording: subtract its start, or leave such spikes out.",
        (npz("spikes.npz", samples=[-50, 20]),),
    ),
    "all spikes after the recording": Bad(
        REC,
        "DataError: {folder}/spikes.npz: all of its 2 spikes lie beyond the end of {folder}/rec.npy (sample 400). "
        "Check that the two belong together, and their sampling rates.",
        (npz("spikes.npz", samples=[5000, 6000]),),
    ),
    "spikes of other units than their number": Bad(
        REC,
        "DataError: {folder}/spikes.npz: has 2 spikes and 1 units. Store the unit of each spike.",
        (npz("spikes.npz", samples=[50, 60], units=[1]),),
    ),
    "spikes as times where they are samples": Bad(
        f"{REC} --times s --sampling-rate 1000",
        "ConfigError: {folder}/spikes.npz: holds samples, no times. Leave out times='s'.",
    ),
    "a unit that there is not": Bad(
        f"{REC} --units 7 8",
        "ConfigError: units: none of 7, 8 is in {folder}/spikes.npz, which has 1, 2. Give some of those.",
    ),
    "units by another kind of name": Bad(
        f"{REC} --units a",
        "ConfigError: {folder}/spikes.npz: its unit ids are integers, such as 1, and units= names text. Pass units= "
        "as integers.",
    ),
    "no window": Bad(
        f"{STA} --source rec.npy",
        "ConfigError: --window: is missing; pass it, or write 'window: ...' in the --config file.",
    ),
    "a window that is reversed": Bad(
        f"{STA} --source rec.npy --window 2 -3",
        "ConfigError: --window: 2 -3 holds no sample; its start must be before its stop, which is not in it.",
    ),
    "a window of three bounds": Bad(
        f"{STA} --source rec.npy --window -3 0 2",
        "ConfigError: --window: give two numbers, start and stop, such as -149 1.",
    ),
    "a window in words": Bad(f"{STA} --source rec.npy --window a b", "ConfigError: --window: 'a' is no number."),
    "a window in time without a rate": Bad(
        f"{REC} --window-unit ms",
        "ConfigError: window: in time, but the recording has no sampling rate. Open it with sampling_rate=.",
    ),
    "a sampling rate of 0": Bad(
        f"{REC} --sampling-rate 0", "ConfigError: --sampling-rate: '0': input should be greater than 0."
    ),
    "a sampling rate that is another": Bad(
        f"{STA} --source rec.h5 --window -3 2 --sampling-rate 1000",
        "DataError: {folder}/rec.h5: its sampling rate is 30000 Hz, sampling_rate=1000 was given. Leave it out, or "
        "check which is right.",
        (hdf5("rec.h5", ONES, sampling_rate=30_000.0),),
    ),
    "raw binary that does not come out": Bad(
        f"{STA} --source rec.dat --window -3 2 --n-channels 4 --dtype int16 --sampling-rate 1000",
        "DataError: {folder}/rec.dat: its 83 bytes are no whole number of samples: 4 channels of int16 take 8 bytes, "
        "3 are left over. Check n_channels and dtype, or copy the file again.",
        (raw("rec.dat", bytes(83)),),
    ),
    "raw binary of no type": Bad(
        f"{STA} --source rec.dat --window -3 2 --n-channels 4 --dtype int99 --sampling-rate 1000",
        "ConfigError: dtype: 'int99' is none (data type 'int99' not understood). Give one such as 'int16'.",
        (raw("rec.dat", bytes(80)),),
    ),
    "recordings of other channels": Bad(
        f"{STA} --source rec.npy other.npy --window -3 2",
        "DataError: mismatched channels: {folder}/rec.npy has 2, {folder}/other.npy 4. Open them apart.",
        (npy("other.npy", ONES.astype(np.int16)),),
    ),
    "NaN in a window": Bad(
        f"{STA} --source bad.npy --window -3 2",
        "DataError: {folder}/bad.npy: NaN at sample 49, channel 1, within a window. Leave such windows out with "
        "nan='omit' (--nan omit), or let it spoil its lag and channel with nan='propagate'.",
        (entry(np.nan, 49, 1, "rec.npy"),),
    ),
    "no stretches to leave out": Bad(
        f"{REC} --exclude no.npy", "DataError: no.npy: cannot be read: No such file or directory. Check the path."
    ),
    "averages to no known format": Bad(
        f"{REC} --arrays a.npy",
        "ConfigError: out (--arrays): 'a.npy' is no .zarr, which averages are written to. Name it sta.zarr.",
    ),
    "significance of parts of windows": Bad(
        f"{REC} --significance --edges nan",
        "ConfigError: --significance: needs whole windows, not edges=nan with nan=raise. Use edges=drop, nan=raise "
        "or omit.",
    ),
    "sums of another window": Bad(
        f"{STA} --source rec.npy --window -4 2 --state st",
        f"DataError: {{folder}}/st/spikes.state: was made with window [-3, 2], this run has [-4, 2]. {START_OVER}",
        (f"{REC} --out first --state st",),
    ),
    "no folder of recordings": Bad(
        INCOMING, "DataError: {folder}/incoming: no such folder. Make it (--make-folder), or pass another --folder."
    ),
    "a folder of recordings that may not be looked into": Bad(
        INCOMING,
        "DataError: {folder}/incoming: cannot be read: no right to. Change its rights, or pass another.",
        (inside("incoming"), without_rights("incoming", 0)),
        (NOT_AS_ROOT,),
    ),
    "a folder of recordings in a store": Bad(
        f"jobs recordings --folder s3://bucket/incoming --window -3 2 {Q}",
        "ConfigError: folder: s3://bucket/incoming is no local folder, which alone can be watched. Mount it.",
    ),
    "the same spikes for all recordings": Bad(
        f"{INCOMING} --spikes x.npz",
        "ConfigError: --spikes: 'x.npz' names the same spikes for every recording; put {stem} or {name} into it.",
        (inside("incoming"),),
    ),
    "recordings with a reversed window": Bad(
        f"jobs recordings --folder incoming --window 2 -3 {Q}",
        "ConfigError: --window: 2 -3 holds no sample; its start must be before its stop, which is not in it.",
        (inside("incoming"),),
    ),
    "results of recordings on a file": Bad(
        f"{INCOMING} --out rec.npy",
        "DataError: rec.npy: is a file, where a folder for the results is wanted. Pass another --out.",
        (inside("incoming"),),
    ),
}

NETWORKS = {
    "nothing to validate on": Bad(
        f"jobs sweep --source rows.npy --labels y.npy {Q}",
        "ConfigError: --hold-out: is missing: there is nothing to validate on; give validation and "
        "validation_labels, or hold out the last rows.",
    ),
    "labels of other rows": Bad(
        f"{SWEEP} --labels l.npy",
        "DataError: {folder}/l.npy: 59 labels, but X has 60 rows. Give one label a row.",
        (npy("l.npy", np.arange(59) % 2),),
    ),
    "labels of one class": Bad(
        f"{SWEEP} --labels l.npy",
        "DataError: y: all 40 rows of {folder}/rows.npy[:40] are of class 0. Give two classes.",
        (npy("l.npy", np.zeros(ROWS, int)),),
    ),
    "labels that are missing": Bad(
        f"{SWEEP} --labels l.npy",
        "DataError: {folder}/l.npy: row 3 has no label. Leave such rows out, of the matrix too, or fill it in.",
        (npy("l.npy", np.where(np.arange(ROWS) == 3, np.nan, 1.0)),),
    ),
    "labels of a matrix": Bad(
        f"{SWEEP} --labels rows.npy",
        "DataError: {folder}/rows.npy: has shape (60, 8), labels have one dimension. Pass one column, an entry a row.",
    ),
    "labels with a head": Bad(
        f"{SWEEP} --labels l.csv",
        "DataError: {folder}/l.csv: line 1 is 'label', all others are numbers. Remove the header.",
        (raw("l.csv", "label\n1\n2\n"),),
    ),
    "labels under several names": Bad(
        f"{SWEEP} --labels l.npz",
        "DataError: {folder}/l.npz: has 2 arrays ('a', 'b'). Choose one with column= (--label-column).",
        (npz("l.npz", a=np.arange(ROWS), b=np.arange(ROWS)),),
    ),
    "a class that is only validated": Bad(
        f"{SWEEP} --labels l.npy",
        "DataError: y_valid: class 7 (first at row 5 of {folder}/rows.npy[40:]) is of no training row. Leave such "
        "rows out, or train on some.",
        (npy("l.npy", np.r_[np.arange(45) % 2, np.full(15, 7)]),),
    ),
    "sizes beyond the rows": Bad(
        f"jobs sweep {LABELLED} --strengths 1 --sizes 20,500",
        "DataError: {folder}/rows.npy[:40]: has 40 rows, too few for sizes 500. Allow smaller ones (--allow-smaller) "
        "to do those that fit.",
    ),
    "a strength of 0": Bad(
        f"jobs sweep {LABELLED} --strengths 1,0",
        "ConfigError: --strengths: C = 0 is no strength. Give numbers above 0; less regularizes more.",
    ),
    "all rows held out": Bad(
        f"{SWEEP} --hold-out 60",
        "ConfigError: hold_out: 60 of the 60 rows of {folder}/rows.npy leaves none to learn from. Give 1 to 59, or a "
        "share between.",
    ),
    "two ways to validate": Bad(
        f"{SWEEP} --validation rows.npy --validation-labels y.npy",
        "ConfigError: --hold-out: goes without validation; give one of the two.",
    ),
    "strengths that ridge is to give up": Bad(
        f"jobs plan {SWEEP.removeprefix('jobs ')} --model ridge --early-stopping",
        "ConfigError: early_stopping: ridge gives no strength up. Leave it out.",
    ),
    "a model of no kind": Bad(
        f"{SWEEP} --model logstic",
        "ConfigError: --model: 'logstic' is not one of logistic, sgd, mlp, deep, dbn, ridge.",
    ),
    "a model that starts from nothing": Bad(
        f"{SWEEP} --model dbn",
        "ConfigError: dbn: there is no stack to start from. Give pretrained= (--pretrained), a file that the job dbn "
        "left.",
    ),
    "a batch of more than all rows": Bad(
        f"{MLP} --batch-size 5000",
        "ConfigError: batch_size: 5,000 is more than the 40 rows of {folder}/rows.npy[:40]. Give 40 at most, or all "
        "(None) of them.",
    ),
    "a GPU where there is none": Bad(
        f"{MLP} --device cuda",
        "ConfigError: device: cuda was asked for, but torch ... on this machine. Pass device='auto' or 'cpu' "
        "(--device cpu), or run where there is a GPU.",
    ),
    "a layer of no units": Bad(
        f"jobs mlp {LABELLED} --hidden 4,0",
        "ConfigError: --hidden: 0: input should be greater than or equal to 1.",
    ),
    "patience without validation": Bad(
        f"jobs mlp --source rows.npy --labels y.npy --patience 3 {Q}",
        "ConfigError: --patience: there are no validation rows to be patient about; give some, or leave it out.",
    ),
    "images of other pixels": Bad(
        f"{MLP} --image-shape 4,4",
        "ConfigError: image_shape: 4,4 has 16 pixels, but {folder}/rows.npy has 8 columns. Give another shape, or "
        "leave it out.",
    ),
    "a network larger than memory": Bad(
        f"jobs mlp {LABELLED} --hidden 9000,9000 --batch-size 10 --engine.memory 16MiB",
        "MemoryPlanError: {folder}/rows.npy[:40]: ... It fits in memory='...'; or give a smaller batch_size, or fewer "
        "units.",
    ),
    "a training that diverges": Bad(
        f"{MLP} --optimizer gradient_descent --learning-rate 1e38",
        "DivergedError: loss is ... at step ...: batch ... of 4 in epoch 1. Use a smaller learning_rate (here 1e+38), "
        "set clip_norm, or divide the entries (divide_by).",
    ),
    "NaN in a training": Bad(
        f"{MLP} --source bad.npy", f"DataError: {{folder}}/bad.npy[:40]: {IS_NAN}", (entry(np.nan),)
    ),
    "a checkpoint of another network": Bad(
        f"jobs mlp {LABELLED} --hidden 5 --batch-size 10 --epochs 1 --state st",
        'DataError: {folder}/st/training-last.safetensors: was made with network "8-4-3, relu, cross_entropy", this '
        f'run has "8-5-3, relu, cross_entropy". {START_OVER}',
        (f"{MLP} --out first --state st",),
    ),
    "a torn checkpoint": Bad(
        f"{MLP} --epochs 2 --state st",
        "DataError: {folder}/st/training-last.safetensors: cannot be read as safetensors (...). " + START_OVER,
        (f"{MLP} --out first --state st", truncated("st/*last.safetensors", 9)),
    ),
    "entries that are no probabilities": Bad(
        RBM,
        "DataError: {folder}/rows.npy: ... at row 0, column 0: Bernoulli units take 0 to 1. Standardise with "
        "visible='gaussian' (--visible gaussian).",
    ),
    "chains of no step": Bad(f"{RBM} --k 0", "ConfigError: --k: '0': input should be greater than or equal to 1."),
    "chains in several processes": Bad(
        f"{RBM} --persistent --processes 2",
        "ConfigError: persistent: chains stay in one process. Pass processes=1, or persistent=False.",
    ),
    "a stack that is none": Bad(
        f"{DBN} --stack y.npy",
        "DataError: {folder}/y.npy: cannot be read as safetensors (...). Give the file of a pre-trained stack, as the "
        "job dbn and DBN.save leave it.",
    ),
    "a network for a stack": Bad(
        f"{DBN} --stack net/model.safetensors",
        "DataError: {folder}/net/model.safetensors: is a network with outputs (cross_entropy), where a pre-trained "
        "stack is wanted. Give the file of a pre-trained stack, as the job dbn and DBN.save leave it.",
        (f"{MLP} --out net",),
    ),
    "a stack and a random start": Bad(
        f"{DBN} --stack y.npy --pretrain false",
        "ConfigError: --pretrain: false goes without a stack; give one of the two.",
    ),
    "unlabelled rows of other columns": Bad(
        f"{DBN} --unlabelled narrow.npy",
        "DataError: {folder}/narrow.npy: 4 columns, but the model has 8 inputs. Give rows of the columns that it was "
        "trained on.",
        (npy("narrow.npy", ONES),),
    ),
    "more codes than columns": Bad(f"{DBN} --codes 99", "ConfigError: codes: 99. Give 1 to 8 of them."),
    "predictions of no model": Bad(
        f"{PREDICT} --model no", f"DataError: {{folder}}/no: no such file or directory. {OF_A_NETWORK}"
    ),
    "predictions of components": Bad(
        f"{PREDICT} --model pca",
        f"DataError: {{folder}}/pca: holds no model.safetensors. {OF_A_NETWORK}",
        (f"{PCA} {Q} --out pca",),
    ),
    "predictions of a damaged network": Bad(
        f"{PREDICT} --model net",
        "DataError: {folder}/net/model.safetensors: is damaged: its tensors are not those that were written. "
        + OF_A_NETWORK,
        (f"{MLP} --out net", flipped("net/model.safetensors", -8)),
    ),
    "predictions of other columns": Bad(
        "jobs predict --source narrow.npy --out said.npy --model net",
        "DataError: {folder}/narrow.npy: 4 columns, but the network has 8 inputs. Give rows of the columns that it "
        "was trained on.",
        (f"{MLP} --out net", npy("narrow.npy", ONES)),
    ),
    "predictions in place of the rows": Bad(
        "jobs predict --source rows.npy --out rows.npy --overwrite --model net",
        "DataError: rows.npy: is the source itself. Write elsewhere.",
        (f"{MLP} --out net",),
    ),
    "predictions to no known format": Bad(
        "jobs predict --source rows.npy --out said.csv --model net",
        "ConfigError: --out: 'said.csv' does not end in .npy.",
    ),
    "probabilities of a machine": Bad(
        f"{PREDICT} --model machine --probabilities",
        "ConfigError: probabilities: are of classes, and a machine has none. Leave it out.",
        (f"{RBM} --visible gaussian --out machine",),
    ),
    "a timing on a GPU where there is none": Bad(
        "jobs devices --device cuda",
        "ConfigError: device: cuda was asked for, but torch ... on this machine. Pass device='auto' or 'cpu' "
        "(--device cpu), or run where there is a GPU.",
    ),
    "a timing of labels without rows": Bad(
        "jobs devices --labels y.npy",
        "ConfigError: --labels: there is no source that they are of; give it, or leave them out.",
    ),
    "a timing of entries divided by 0": Bad(
        "jobs devices --divide-by 0", "ConfigError: --divide-by: '0': input should be greater than 0."
    ),
}

TOOLS = {
    "a copy of nothing": Bad(
        "jobs convert --target new.npy",
        "ConfigError: --source: is missing; pass it, or --table for a table of Spark's catalog.",
    ),
    "a copy of two things": Bad(
        f"{COPY} --table t --target new.npy", "ConfigError: --source: is given, and --table too; leave one out."
    ),
    "a copy to no known format": Bad(
        f"{COPY} --target new/x.csv",
        "DataError: {folder}/new/x.csv: cannot write '.csv'. Use .npy, .arrow or .zarr, or .parquet for sparse rows.",
    ),
    "a dense copy to a sparse format": Bad(
        f"{COPY} --target x.parquet",
        "DataError: {folder}/x.parquet: a dense matrix is not written to .parquet. Use one of .npy, .arrow, .zarr.",
    ),
    "a copy onto a file": Bad(f"{COPY} --target y.npy", f"DataError: {{folder}}/y.npy: {EXISTS}"),
    "a copy below a file": Bad(f"{COPY} --target y.npy/x.npy", f"DataError: {{folder}}/y.npy/x.npy: {FILE_ABOVE}"),
    "a copy by an option of tables": Bad(
        f"{COPY} --target x.npy --columns a", "ConfigError: --columns: is for tables; for one, add --engine.kind spark."
    ),
    "a table of the catalog in a format": Bad(
        "jobs convert --table t --format csv --target new/x.npy",
        "ConfigError: --format: is for files; a table of the catalog has its own. Leave it out.",
    ),
    "a table without Spark": Bad(
        "jobs convert --table t --engine.kind serial --target new/x.npy",
        "ConfigError: --engine.kind: tables are read by Spark; pass spark, or leave it out.",
    ),
    "a table by Dask": Bad(
        "jobs convert --table t --engine.kind dask --target new/x.npy",
        "ConfigError: --engine.kind: 'dask' is not one of serial, spark.",
    ),
    "a table by an option of matrices": Bad(
        f"{TABLE} --format csv --panel-columns 5",
        "ConfigError: --panel-columns: is for sources that are matrices.",
    ),
    "a table by an option without its value": Bad(
        f"{TABLE} --engine.kind spark --options header",
        "ConfigError: --options: 'header' is no option of the reader: give name=value, such as header=true.",
    ),
    "a table with nulls of no kind": Bad(
        f"{TABLE} --nulls omit", "ConfigError: --nulls: 'omit' is not one of raise, nan, zero, drop."
    ),
    "a format that Spark does not read": Bad(
        f"{TABLE} --format cvs",
        "ConfigError: format (--format): 'cvs' is no format that Spark reads; the nearest is 'csv'. Give one of csv, "
        "json, parquet, orc, text, xml, jdbc, avro, delta, hudi, iceberg, or the class of a reader, such as "
        "com.example.Source.",
    ),
    "tables that are not there": Bad(
        "jobs convert --source raw/*.csv --engine.kind spark --target new/x.npy",
        "DataError: raw/*.csv: no such file or directory. Check the path.",
    ),
    "a table of no known format": Bad(
        "jobs convert --source rows.npy --engine.kind spark --target new/x.npy",
        "DataError: rows.npy: its name does not tell its format. Give it: format='csv' (--format csv).",
    ),
    "a table to no known format": Bad(
        "jobs convert --source a.csv --engine.kind spark --target x.zarr",
        "DataError: {folder}/x.zarr: a table is not written to '.zarr'. Write a .npy, and convert that: python -m "
        "jobs convert --source x.npy --target x.zarr.",
    ),
    "a table onto a file": Bad(
        "jobs convert --source a.csv --engine.kind spark --target rows.npy",
        f"DataError: {{folder}}/rows.npy: {EXISTS}",
    ),
    "svmlight text with a word": Bad(
        "jobs convert --source t.svm --target x.arrow",
        "DataError: {folder}/t.svm: line 1 is not 'label index:value ...': '1 3:x'. Correct it; labels are single "
        "numbers, indices whole ones.",
        (raw("t.svm", "1 3:x\n"),),
    ),
    "a damaged image": Bad(
        "jobs convert --source new --target x.npy",
        "DataError: {folder}/new/a.png: is no readable image (...). Remove it, or replace it by a good copy.",
        (inside("new"), raw("new/a.png", b"garbage")),
    ),
    "a matrix without a shape": Bad(
        "jobs generate --target new.npy",
        "ConfigError: --n-rows: is missing; pass it, or write 'n_rows: ...' in the --config file; --n-columns: is "
        "missing; pass it, or write 'n_columns: ...' in the --config file.",
    ),
    "a matrix of no rows": Bad(
        "jobs generate --target new.npy --n-rows 0 --n-columns 5",
        "ConfigError: --n-rows: '0': input should be greater than or equal to 2.",
    ),
    "a matrix larger than the disk": Bad(
        "jobs generate --target new.npy --n-rows 1000000000 --n-columns 1000000000",
        "DiskFullError: {folder}/new.npy: needs 3637979TiB of disk, ... are free. Free some or write elsewhere.",
    ),
    "more components than its columns": Bad(
        f"{GENERATE} --rank 6",
        "DataError: {folder}/new.npy: rank 6 is not between 1 and min(n_rows - 1, n_columns) = 5. Change it.",
    ),
    "a spectrum in words": Bad(
        f"{GENERATE} --spectrum 9,x",
        "ConfigError: --spectrum: '9,x' is neither 1/i nor variances such as 9,4,1.",
    ),
    "negative variances": Bad(
        f"{GENERATE} --spectrum 9,-1",
        "DataError: {folder}/new.npy: the spectrum has negative or infinite entries. Use variances, 0 or above.",
    ),
    "a truth that exists": Bad(GENERATE, f"DataError: {{folder}}/new.mean.npy: {EXISTS}", (raw("new.mean.npy", ""),)),
    "a log of nothing": Bad(
        "jobs log", "ConfigError: --result: is missing; pass it, or write 'result: ...' in the --config file."
    ),
    "a log of no result": Bad(
        "jobs log --result new",
        "DataError: new: is no result of a job (it holds no result.json). Pass its folder as --result.",
        (inside("new"),),
    ),
    "a log of half a record": Bad(
        "jobs log --result new",
        "DataError: new/result.json: is damaged (it holds no mlflow). Run the job again.",
        (record("new", {"job": "pca"}),),
    ),
    "a log of what is no record": Bad(
        "jobs log --result new",
        "DataError: new/result.json: is damaged (it is no JSON). Run the job again.",
        (inside("new"), raw("new/result.json", "{")),
    ),
    "a log to nowhere": Bad(
        "jobs log --result pca --tracking.enabled false",
        "ConfigError: tracking.enabled: is false, and this job does nothing but track. Leave it out.",
        (f"{PCA} {Q} --out pca",),
    ),
    "a log to a store that does not answer": Bad(
        "jobs log --result pca --tracking.uri http://127.0.0.1:9",
        "EngineError: http://127.0.0.1:9: no MLflow store answers ([Errno 111] Connection refused). Start one with "
        "`make up` or `mlflow server`, or pass another --tracking.uri.",
        (f"{PCA} {Q} --out pca",),
    ),
    "an unknown option of a deployment": Bad(
        "flows.deploy --chek",
        "ConfigError: unrecognized arguments: --chek. See python -m flows.deploy --help.",
    ),
    "a deployment to no server": Bad(
        "flows.deploy", "ConfigError: PREFECT_API_URL: is not set, so there is no Prefect server. Start it with ..."
    ),
    "a verb that a stack has not": Bad(
        "flows.stack strat",
        "ConfigError: strat: no such verb; the nearest is 'start'. Verbs: up, status, down, start, commands, env.",
    ),
    "a server that a stack has not": Bad(
        "flows.stack start mlfow",
        "ConfigError: mlfow: no such server; the nearest is 'mlflow'. Servers: postgres, prefect, mlflow, worker, "
        "dask, spark.",
    ),
    "a port in words": Bad(
        "flows.stack up --ports.mlflow many",
        "ConfigError: --ports.mlflow: 'many': input should be a valid integer.",
    ),
}

BAD = JOBS | OPTIONS | FILES | SOURCES | OUTPUTS | STATISTICS | RECORDINGS | NETWORKS | TOOLS
PARTS = (JOBS, OPTIONS, FILES, SOURCES, OUTPUTS, STATISTICS, RECORDINGS, NETWORKS, TOOLS)
