"""Ranges of an object: any cut of them gives the same bytes, with few requests and little read beside."""

import os
import pickle
import uuid
from itertools import pairwise

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io import open_matrix
from lazypipe.stores import Place, RemoteFile, StoreError, path_of
from lazypipe.stores.file import BLOCK_NBYTES, RangedFile
from lazypipe.stores.ranges import PART_NBYTES, requests


def stored(data: bytes) -> Place:
    """An object in the memory of this process."""
    uri = f"memory://{uuid.uuid4().hex}/data"
    fsspec.filesystem("memory").pipe_file(uri, data)
    return path_of(uri)


RANGES = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 800)), max_size=20)


@settings(deadline=None, max_examples=60)
@given(ranges=RANGES, scale=st.sampled_from([1, 700, 5000]))
def test_any_ranges_are_covered_once_and_little_else(ranges, scale):
    wanted = [(start * scale, np.empty(length * scale, np.uint8)) for start, length in ranges]
    asked = requests(wanted)
    covered = np.zeros(5800 * scale + 1 if scale < 5000 else 0, np.int8)
    assert all(0 < r.stop - r.start <= PART_NBYTES for r in asked)
    assert all(a.stop <= b.start for a, b in pairwise(asked))
    if scale < 5000:
        for start, out in wanted:
            covered[start : start + len(out)] = 1
        read = sum(r.stop - r.start for r in asked)
        assert int(covered.sum()) <= read <= 1.125 * int(covered.sum())
        for request in asked:
            covered[request.start : request.stop] = 0
        assert not covered.any()


@settings(deadline=None, max_examples=40)
@given(ranges=RANGES)
def test_each_range_is_given_its_own_bytes(ranges):
    data = np.random.default_rng(0).integers(0, 256, 6000, dtype=np.uint8)
    file = RemoteFile(stored(data.tobytes()))
    wanted = [(start, np.full(length, 7, np.uint8)) for start, length in ranges]
    file.gather(wanted)
    for start, out in wanted:
        np.testing.assert_array_equal(out, data[start : start + len(out)])


def test_a_long_range_is_cut_and_put_together():
    data = np.random.default_rng(0).integers(0, 256, 3 * PART_NBYTES + 17, dtype=np.uint8)
    out = np.empty(len(data) - 5, np.uint8)
    RemoteFile(stored(data.tobytes())).read(5, out)
    np.testing.assert_array_equal(out, data[5:])


def test_what_lies_beyond_the_end_is_refused():
    with pytest.raises(StoreError, match="was written again, or deleted"):
        RemoteFile(stored(b"abc")).read(1, np.empty(3, np.uint8))


@settings(deadline=None, max_examples=30)
@given(steps=st.lists(st.tuples(st.integers(0, 3 * BLOCK_NBYTES), st.integers(0, 2 * BLOCK_NBYTES)), max_size=8))
def test_a_ranged_file_reads_as_any_file(steps):
    data = os.urandom(3 * BLOCK_NBYTES - 11)
    file = RangedFile(stored(data))
    for offset, length in steps:
        file.seek(offset)
        assert file.read(length) == data[offset : offset + length]
        assert file.tell() == min(offset + length, max(offset, len(data)))
    assert file.seek(-4, os.SEEK_END) == len(data) - 4
    assert file.read() == data[-4:]


@settings(deadline=None, max_examples=30)
@given(data=st.data(), fortran=st.booleans(), wide=st.booleans())
def test_any_rectangle_of_an_object_is_the_slice(data, fortran, wide):
    import io

    values = np.random.default_rng(0).normal(size=(7, 6000) if wide else (50, 9)).astype(np.float32)
    raw = io.BytesIO()
    np.save(raw, np.asfortranarray(values) if fortran else values)
    place = Place(stored(raw.getvalue()).uri.removesuffix("/data") + "/m.npy")
    fsspec.filesystem("memory").pipe_file(place.uri, raw.getvalue())
    matrix = pickle.loads(pickle.dumps(open_matrix(str(place))))
    with matrix.open() as reader:
        for _ in range(3):
            rows, columns = (Span(*sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2)))) for n in values.shape)
            out = np.empty((len(rows), len(columns)), np.float64)
            reader.read(rows, columns, out)
            np.testing.assert_array_equal(out, values[rows.slice, columns.slice])


def test_a_place_is_used_as_a_path_is():
    place = path_of("s3://bucket/a/m.tar.npy")
    assert (place.name, place.stem, place.suffix) == ("m.tar.npy", "m.tar", ".npy")
    assert str(place.parent) == "s3://bucket/a" and str(place.with_suffix(".meta")) == "s3://bucket/a/m.tar.meta"
    assert str(place.parent / "b/c") == "s3://bucket/a/b/c"
    assert place.is_relative_to(path_of("s3://bucket/a")) and not place.is_relative_to(path_of("s3://bucket/b"))
    assert pickle.loads(pickle.dumps(place)) == place
    assert str(path_of("s3://bucket/a/")) == "s3://bucket/a"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ftp://host/m.npy", "cannot read from ftp://. Use one of s3://"),
        ("s3://name:a-password@bucket/m.npy", "s3://bucket/m.npy: its address carries a name or a password"),
        ("https://host/m.npy?token=a-password", "https://host/m.npy: its address carries a query"),
        ("s3://bucket", "names no object. Write it as s3://bucket/name"),
        ("s3://", "names no object"),
    ],
)
def test_an_address_that_is_none_is_refused_without_its_secrets(address, said):
    with pytest.raises(DataError) as told:
        open_matrix(address)
    assert said in str(told.value) and "a-password" not in str(told.value)


def test_a_missing_package_is_named(monkeypatch):
    def missing(scheme):
        raise ImportError(f"Install it to access {scheme}")

    from lazypipe.stores.filesystems import FILE_SYSTEMS

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    monkeypatch.setattr(FILE_SYSTEMS, "_opened", {})
    with pytest.raises(DataError, match=r"s3:// needs a package that is not installed. pip install 'lazypipe\[s3\]'"):
        open_matrix("s3://bucket/m.npy")
    with pytest.raises(DataError, match=r"pip install 'gcsfs'"):
        open_matrix("gs://bucket/m.npy")
