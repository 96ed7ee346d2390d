"""Whether what a container serves answers: exit code 0, or 1 with a line that says what does not.

``$HEALTHY`` holds the places, with spaces between: ``http://…`` has to answer with 200, ``tcp://host:port`` to listen.
Needs no package.
"""

import os
import socket
import sys
import urllib.request
from urllib.parse import urlsplit

SECONDS = 4


def answer(place: str) -> None:
    """Raise OSError unless ``place`` answers."""
    address = urlsplit(place)
    if address.scheme == "tcp":
        socket.create_connection((address.hostname or "", address.port or 0), timeout=SECONDS).close()
    else:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        direct.open(place, timeout=SECONDS).close()


def main() -> int:
    for place in os.environ.get("HEALTHY", "").split():
        try:
            answer(place)
        except (OSError, ValueError) as error:
            sys.stderr.write(f"{place}: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
