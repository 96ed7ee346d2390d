"""IDX files, plain and gzipped, are the arrays that were written; damaged ones are refused in one line."""

from __future__ import annotations

import gzip
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from matrix_writers import IDX_CODES, idx_bytes

from lazypipe.blocks import Span
from lazypipe.errors import DataError, MemoryPlanError
from lazypipe.io import open_matrix
from lazypipe.io.beside import open_column
from lazypipe.io.convert import convert
from lazypipe.io.idx import READ_NBYTES, open_idx
from lazypipe.io.raw_rows import RawRowsMatrix
from lazypipe.progress import Progress, StageDone, TaskDone

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist-train-images-idx3-ubyte.gz"
HEAD = b"\0\0\x08\x03" + np.array([5, 2, 3], ">u4").tobytes()
IMAGES = HEAD + bytes(range(30))


def written(folder: Path, content: bytes, name: str = "x-idx3-ubyte") -> Path:
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder / name


def random_values(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.default_rng(0)
    if dtype.startswith("float"):
        return random.standard_normal(shape).astype(dtype)
    info = np.iinfo(dtype)
    return random.integers(info.min, info.max, shape, dtype, endpoint=True)


def test_a_file_by_hand(tmp_path):
    path = written(tmp_path, b"\0\0\x0b\x02\0\0\0\x02\0\0\0\x03\0\1\0\2\0\3\1\0\xff\xff\x80\0")
    target = convert(path, tmp_path / "x.npy")
    np.testing.assert_array_equal(np.load(target), np.array([[1, 2, 3], [256, -1, -32768]], np.int16))


@pytest.mark.parametrize("name", ["x-idx3-ubyte", "x.idx", "x.idx3-ubyte", "x.gz", "x-idx3-ubyte.gz", "x.bin"])
@pytest.mark.parametrize("dtype", IDX_CODES)
def test_every_dtype_under_every_name(dtype, name, tmp_path):
    values = random_values(dtype, (7, 2, 5))
    target = np.load(convert(written(tmp_path, idx_bytes(values), name), tmp_path / "x.npy"))
    assert target.dtype == np.dtype(dtype)
    assert target.dtype.isnative
    assert target.tobytes() == values.reshape(7, 10).tobytes()


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 4), (3, 2, 2, 2, 2), (1, 1, 1)])
@pytest.mark.parametrize("suffix", [".npy", ".arrow", ".zarr"])
@pytest.mark.parametrize("name", ["x", "x.gz"])
def test_any_dimensions_to_every_target(name, suffix, shape, tmp_path):
    values = random_values("float32", shape)
    matrix = open_matrix(convert(written(tmp_path, idx_bytes(values), name), tmp_path / f"y{suffix}"))
    out = np.empty(matrix.shape, matrix.dtype)
    with matrix.open() as reader:
        reader.read(Span(0, matrix.shape[0]), Span(0, matrix.shape[1]), out)
    assert out.tobytes() == values.tobytes()
    assert out.shape[0] == shape[0]


def test_a_plain_file_is_read_in_place(tmp_path):
    matrix = open_matrix(written(tmp_path, IMAGES))
    assert isinstance(matrix, RawRowsMatrix)
    assert matrix.shape == (5, 6)


def test_labels_are_a_column(tmp_path):
    labels = open_column(written(tmp_path, idx_bytes(np.arange(9, dtype=np.uint8))))
    assert labels.shape == (9, 1)


def test_a_masked_column_is_refused():
    with pytest.raises(DataError, match=r"^<target>: is masked\. Fill what is missing with NaN"):
        open_column(np.ma.array([1.0, 2.0], mask=[True, False]), "target")


def test_gzip_rectangles_in_any_order(tmp_path):
    """Rows longer than what is decompressed at once, too."""
    for shape in ((40, 11), (3, READ_NBYTES // 2 + 1)):
        values = random_values("int16", shape)
        matrix = open_idx(written(tmp_path, idx_bytes(values), "x.gz"))
        n = shape[0]
        with matrix.open() as reader:
            for rows, columns in ((Span(1, n), Span(2, 9)), (Span(0, 2), Span(0, shape[1])), (Span(2, 2), Span(0, 3))):
                out = np.empty((len(rows), len(columns)))
                reader.read(rows, columns, out)
                np.testing.assert_array_equal(out, values[rows.slice, columns.slice])


def test_blocks_progress_and_memory(tmp_path):
    values = random_values("uint8", (100, 1 << 18))
    source, events = written(tmp_path, gzip.compress(idx_bytes(values), 1), "x"), []
    tracemalloc.start()
    try:
        target = convert(source, tmp_path / "x.npy", memory="10MiB", progress=Progress((events.append,)))
        assert tracemalloc.get_traced_memory()[1] < 10 * 1024**2 + 1e6
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(np.load(target, mmap_mode="r"), values)
    assert len([event for event in events if isinstance(event, TaskDone)]) > 10
    assert events[-1].title == "convert to x.npy"
    assert isinstance(events[-1], StageDone)
    with pytest.raises(MemoryPlanError, match=r"block of 1 rows, memory is 1,000"):
        convert(source, tmp_path / "y.npy", memory=1000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "x.npy"]


def test_a_gzipped_file_is_to_be_converted(tmp_path):
    path = written(tmp_path, IMAGES, "x.gz")
    with pytest.raises(DataError, match=r"x\.gz: is gzipped IDX.*Convert it to \.npy, and open that\.$"):
        open_matrix(path)


REFUSED = {
    "truncated": (IMAGES[:-1], r"is truncated: 45 bytes, its header says 46"),
    "truncated header": (HEAD[:-2], r"is truncated: 14 bytes, its header says 16"),
    "no dimensions left": (HEAD[:4], r"is truncated: 4 bytes, its header says 16"),
    "trailing": (IMAGES + b"\0", r"goes on after the 46 bytes its header says"),
    "no rows": (b"\0\0\x08\x02" + bytes(4) + b"\0\0\0\x03", r"is empty: no rows"),
    "no columns": (b"\0\0\x08\x02" + b"\0\0\0\x03" + bytes(4), r"is empty: no columns"),
    "dims overflow": (b"\0\0\x0e\x04" + b"\xff" * 16 + bytes(99), r"is truncated: .*its header says 2,722,258,9"),
    "wrong magic": (b"\1" + IMAGES[1:], r"is no IDX file: it begins with 0x01000803"),
    "unknown dtype": (b"\0\0\x0a" + IMAGES[3:], r"is no IDX file: it begins with 0x00000a03"),
    "no dimensions": (b"\0\0\x08\0" + IMAGES[4:], r"is no IDX file: it begins with 0x00000800"),
    "empty file": (b"", r"is no IDX file: it begins with 0x,"),
}


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, gzipped, tmp_path):
    content, said = REFUSED[case]
    path = written(tmp_path, gzip.compress(content) if gzipped else content, "x.idx")
    calls = [lambda: convert(path, tmp_path / "x.npy")]
    if not gzipped:
        calls.append(lambda: open_matrix(path))
    for call in calls:
        with pytest.raises(DataError, match=said) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"{path}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["x.idx"]


def test_damaged_gzip(tmp_path):
    values = random_values("uint8", (50, 100))
    whole = gzip.compress(idx_bytes(values))
    flipped = whole[:2000] + bytes([whole[2000] ^ 255]) + whole[2001:]
    sums = whole[:-8] + bytes(4) + whole[-4:]
    for content in (whole[:-500], whole[:-4], flipped, sums, whole + b"\x1f\x8bgarbage"):
        path = written(tmp_path, content, "x.idx")
        with pytest.raises(DataError, match=r"x\.idx: cannot be read \(.*copy it again\.$"):
            convert(path, tmp_path / "x.npy")
        assert [path.name for path in tmp_path.iterdir()] == ["x.idx"]


def test_options_that_mean_nothing(tmp_path):
    path = written(tmp_path, IMAGES)
    for source in (path, written(tmp_path, IMAGES, "x.gz")):
        with pytest.raises(DataError, match=r"no named columns. Leave out column='a'"):
            convert(source, tmp_path / "x.npy", column="a")
        with pytest.raises(DataError, match="no folder of images. Leave out colour"):
            convert(source, tmp_path / "x.npy", colour=True)
        with pytest.raises(DataError, match="no svmlight text"):
            convert(source, tmp_path / "x.npy", n_columns=3)
    with pytest.raises(DataError, match="no named columns"):
        open_matrix(path, column="a")


def test_other_files_are_not_taken_for_idx(tmp_path):
    for name, content in (("x.gz", b"1,2\n" * 9), ("x", b"\0\0\1\xba" + bytes(99)), ("y.gz", b"")):
        with pytest.raises(DataError, match=r"Known formats: .*\.idx\.$"):
            open_matrix(written(tmp_path, content, name))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(IMAGES)[:5])
    with pytest.raises(DataError, match="unknown suffix"):
        convert(tmp_path / "cut.gz", tmp_path / "x.npy")


@pytest.mark.skipif(not MNIST.exists(), reason="needs MNIST in ../shared/data")
def test_mnist(tmp_path):
    target = np.load(convert(MNIST, tmp_path / "mnist.npy"))
    with gzip.open(MNIST) as packed, open(tmp_path / "plain", "wb") as plain:
        shutil.copyfileobj(packed, plain)
    expected = np.fromfile(tmp_path / "plain", np.uint8, offset=16).reshape(60_000, 784)
    np.testing.assert_array_equal(target, expected)
    assert open_matrix(tmp_path / "plain").shape == (60_000, 784)
    assert round(float(target.mean()), 4) == 33.3184
