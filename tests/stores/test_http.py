"""Files of a web server are read in ranges, and never written."""

import http.server
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lazypipe.blocks import Span
from lazypipe.io import open_matrix
from lazypipe.stores import StoreError


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Gives ranges, where ``gives_ranges``."""

    gives_ranges = True
    n_bytes = 0

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
