"""Web servers in the process of a test: one that answers as it is told, a webhook, one that never answers."""

import json
import socket
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@contextmanager
def answering(handler, host="127.0.0.1"):
    """The address of a server whose requests a subclass of ``BaseHTTPRequestHandler`` answers, without a log."""
    quiet = type("Quiet", (handler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer((host, 0), quiet)
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def webhook(host="127.0.0.1"):
    """The address of a webhook, the list of JSON messages that it was sent, and the status, in a list, it answers."""
    got, status = [], [204]

    class Keep(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status[0])
            self.end_headers()

    with answering(Keep, host) as address:
        yield f"{address}/hook", got, status


@contextmanager
def silent():
    """The port of a listener that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]
