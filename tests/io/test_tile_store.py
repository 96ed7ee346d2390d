"""Chunks of tiles are written around the page cache, or through it where that is refused."""

import errno
import os

import google_crc32c
import numpy as np
import pytest

from lazypipe.io import tile_store
from lazypipe.io.tile_store import write_chunk

VALUES = np.arange(64 * 64, dtype=np.float64).reshape(64, 64)
DIRECT = getattr(os, "O_DIRECT", 0)


def test_a_chunk_is_its_numbers_and_their_checksum(tmp_path):
    write_chunk(tmp_path / "c" / "0" / "0", VALUES)
    written = (tmp_path / "c" / "0" / "0").read_bytes()
    assert written[:-4] == VALUES.tobytes()
    assert int.from_bytes(written[-4:], "little") == google_crc32c.value(VALUES.tobytes())


@pytest.mark.skipif(not DIRECT, reason="this system has no direct I/O")
@pytest.mark.parametrize("refusing", ["open", "write"])
def test_a_file_system_without_direct_io_is_written_as_others_are(refusing, tmp_path, monkeypatch):
    opened, tried = os.open, []

    def refuse_open(path, flags, *mode):
        tried.append(bool(flags & DIRECT))
        if flags & DIRECT and refusing == "open":
            raise OSError(errno.EINVAL, "no direct I/O here")
        return opened(path, flags, *mode)

    written = os.write

    def refuse_write(descriptor, raw):
        if tried == [True]:
            raise OSError(errno.EINVAL, "no direct I/O here")
        return written(descriptor, raw)

    monkeypatch.setattr(tile_store.os, "open", refuse_open)
    monkeypatch.setattr(tile_store.os, "write", refuse_write)
    tile_store._write_direct(tmp_path / "chunk", memoryview(VALUES.tobytes()))
    assert tried == [True, False]
    assert (tmp_path / "chunk").read_bytes() == VALUES.tobytes()


@pytest.mark.skipif(not DIRECT, reason="this system has no direct I/O")
def test_a_descriptor_is_closed_once_and_the_error_is_the_last_one(tmp_path, monkeypatch):
    """Closed twice it may be another thread's by then."""
    opened, closed, close = os.open, [], os.close

    def open_once(path, flags, *mode):
        if not flags & DIRECT:
            raise OSError(errno.EMFILE, "too many open files")
        return opened(path, flags, *mode)

    def refuse_write(descriptor, raw):
        raise OSError(errno.EINVAL, "no direct I/O here")

    def close_and_note(descriptor):
        closed.append(descriptor)
        close(descriptor)

    for name, function in (("open", open_once), ("write", refuse_write), ("close", close_and_note)):
        monkeypatch.setattr(tile_store.os, name, function)
    with pytest.raises(OSError, match="too many open files"):
        tile_store._write_direct(tmp_path / "chunk", memoryview(VALUES.tobytes()))
    assert len(closed) == len(set(closed)) == 1
