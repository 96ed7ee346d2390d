"""moto's S3 in this process, behind a door that writes down each request, and can be told to fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "bucket"


@dataclass(frozen=True)
class Request:
    """What was asked, and what moto answered."""

    method: str
    path: str
    query: str
    range: str | None
    status: int
    nbytes: int


class Quiet(WSGIRequestHandler):
    """Writes no line a request."""

    def log_request(self, *_: Any) -> None:
        pass


class ObjectServer:
    """``requests`` since the last ``forget``; ``fail`` may answer a request (status) before moto sees it."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.fail: Callable[[dict[str, Any]], int | None] = lambda environ: None
        self.client: Any = None
        self._lock = threading.Lock()
        self._app = DomainDispatcherApplication(create_backend_app)

    def __enter__(self) -> ObjectServer:
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        said: list[str] = []

        def start(status: str, headers: Any, *rest: Any) -> Any:
            said.append(status)
            return start_response(status, headers, *rest)

        code = self.fail(environ)
        if code is not None:
            start(f"{code} Failed", [("Content-Length", "0")])
            body = [b""]
        else:
            with self._lock:  # moto writes dictionaries from any thread
                body = list(self._app(environ, start))
        self.requests.append(
            Request(
                environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""),
                environ.get("HTTP_RANGE"), int(said[0].split()[0]), sum(map(len, body)),
            )
        )  # fmt: skip
        return body

    def forget(self) -> None:
        self.requests.clear()
        self.fail = lambda environ: None

    def empty(self) -> None:
        """Delete every object, and end every upload."""
        self.forget()
        for key in self.keys():
            self.client.delete_object(Bucket=BUCKET, Key=key)
        self.forget()

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]

    def put(self, path: Path, name: str = "") -> str:
        """Upload a file, or all that is in a folder; the address."""
        name = name or path.name
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        for file in files:
            key = f"{name}/{file.relative_to(path).as_posix()}" if path.is_dir() else name
            self.client.put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())
        self.forget()
        return f"s3://{BUCKET}/{name}"

    def downloaded(self, suffix: str = "") -> int:
        """Bytes of objects that were given since."""
        return sum(r.nbytes for r in self.requests if r.method == "GET" and "list-type" not in r.query
                   and r.path.endswith(suffix))  # fmt: skip
