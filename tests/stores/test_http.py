"""Files of a web server are read in ranges, and never written."""

import http.server
import os
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import lazypipe as lp
from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io import open_matrix
from lazypipe.stores import StoreError
from lazypipe.stores.place import status_of


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Gives ranges, where ``gives_ranges``."""

    gives_ranges = True
    tells_time = True
    n_bytes = 0

    def send_header(self, keyword: str, value: str) -> None:
        if self.tells_time or keyword != "Last-Modified":
            super().send_header(keyword, value)

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        asked = self.headers.get("Range", "")
        if self.gives_ranges and asked:
            start, _, stop = asked.removeprefix("bytes=").partition("-")
            total, data = len(data), data[int(start) : int(stop) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop}/{total}")
        else:
            self.send_response(200)
        type(self).n_bytes += len(data)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(params=[True, False], ids=["ranges", "no ranges"])
def server(request, tmp_path):
    handler = type("Handler", (Ranges,), {"gives_ranges": request.param})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join(10)


def test_a_matrix_of_a_web_server(server, tmp_path):
    address, handler = server
    values = np.random.default_rng(0).normal(size=(2000, 100)).astype(np.float32)
    np.save(tmp_path / "m.npy", values)
    out = np.empty((50, 100), np.float32)

    def read() -> None:
        with open_matrix(f"{address}/m.npy").open() as reader:
            reader.read(Span(1000, 1050), Span(0, 100), out)

    if not handler.gives_ranges:
        with pytest.raises(StoreError, match=r"m.npy: the server gives no ranges, only whole files. Download it"):
            read()
        return
    read()
    np.testing.assert_array_equal(out, values[1000:1050])
    assert handler.n_bytes < 2 * 2**16 + out.nbytes


def test_a_file_of_the_same_size_that_is_written_later_is_another(server, tmp_path):
    np.save(tmp_path / "m.npy", np.eye(30))
    before = open_matrix(f"{server[0]}/m.npy").fingerprint()
    assert open_matrix(f"{server[0]}/m.npy").fingerprint() == before
    os.utime(tmp_path / "m.npy", (10**9, 10**9))
    assert open_matrix(f"{server[0]}/m.npy").fingerprint() != before


@pytest.mark.parametrize("server", [True], indirect=True)
def test_of_what_no_time_is_told_a_later_run_takes_nothing_for_unchanged(server, tmp_path, monkeypatch, serial_engine):
    address, handler = f"{server[0]}/m.npy", server[1]
    handler.tells_time = False
    values = np.random.default_rng(0).normal(size=(300, 8))
    np.save(tmp_path / "m.npy", values)

    def fit(**options):
        lp.covariance(address, state=tmp_path / "covariance", engine=serial_engine, **options)
        lp.PCA(1).fit(address, state=tmp_path / "pca", engine=serial_engine, **options)

    fit()
    before = open_matrix(address).fingerprint()
    assert open_matrix(address).fingerprint() == before
    monkeypatch.setattr("lazypipe.stores.place.UNTOLD", "as in another process")
    assert open_matrix(address).fingerprint() != before
    lp.covariance(address, state=tmp_path / "covariance", engine=serial_engine)  # compares what it holds, by hashes
    np.save(tmp_path / "m.npy", values + 1)
    monkeypatch.setattr("lazypipe.stores.place.UNTOLD", "as in a third one")
    for name, ask in (("covariance", lp.covariance), ("pca", lp.PCA(1).fit)):
        with pytest.raises(DataError, match=r"m\.npy: .*changed since"):
            ask(address, state=tmp_path / name, engine=serial_engine)
    fit(restart=True)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"blob_id": "a", "xet_hash": "x"}, {"blob_id": "b", "xet_hash": "x"}),
        ({"xet_hash": "x"}, {"xet_hash": "y"}),
        ({"Last-Modified": "Sat, 21 Nov 2026 07:00:00 GMT"}, {"Last-Modified": "Sun, 22 Nov 2026 07:00:00 GMT"}),
    ],
    ids=["Hugging Face", "Hugging Face's hash", "a web server"],
)
def test_what_a_store_tells_of_an_object_tells_it_from_the_next(before, after):
    first, again, later = (status_of({"size": 3, "type": "file", **told}) for told in (before, before, after))
    assert first == again and first.st_mtime_ns != later.st_mtime_ns and first.tag != later.tag
