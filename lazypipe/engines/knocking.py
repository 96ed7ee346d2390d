"""Whether anybody answers where a cluster should be: clients wait for a silent one for minutes, or for ever."""

from __future__ import annotations

import socket
import struct

SECONDS = 5.0
NAME = b"/files/lazypipe"
# The size of the message, its kind (a request for a stream) and a name that no master has, which it says at once.
STREAM_OF_SPARK = struct.pack(">qbi", 13 + len(NAME), 6, len(NAME)) + NAME


def knock(host: str, port: int, words: bytes | None = b"") -> None:
    """Raise OSError unless somebody at ``port`` takes ``words``, and answers or hangs up.

    Without words the other side speaks first; None waits for no answer.
    """
    with socket.create_connection((host, port), timeout=SECONDS) as connection:
        if words is not None:
            connection.sendall(words)
            connection.recv(65536)  # all of it: what is left makes the other side tell of a fault
