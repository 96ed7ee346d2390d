"""Command lines without the wait for imports: a process that has them done forks once a command.

    python tests/forked.py jobs.pca mlflow ...    what to import first

Each line on stdin is a request in JSON: ``argv``, whose first word is a module, ``folder``, ``environment``, and the
files ``stdout`` and ``stderr``; each line on stdout is an exit code. A fork runs ``main(argv[1:])`` of that module as
``python -m`` does: in that folder, with that environment and those files, and ends as an interpreter does. Nothing but
imports comes before: a fork takes no threads along.
"""

from __future__ import annotations

import atexit
import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Done(NamedTuple):
    """What a command line came to."""

    code: int
    stdout: str
    stderr: str


class Forked:
    """Runs command lines in forks of one process. Use it as a context manager."""

    def __init__(self, imports: tuple[str, ...], environment: Mapping[str, str]):
        self._process = subprocess.Popen(
            [sys.executable, __file__, *imports],
            env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()  # which ends it
        self._process.wait(60)
        self._process.stdout.close()

    def __call__(self, command: str, folder: Path, beside: Path, environment: Mapping[str, str]) -> Done:
        """Run ``MODULE [argument ...]`` in ``folder``; what it says goes to files in ``beside``."""
        assert self._process.stdin is not None and self._process.stdout is not None
        out, err = beside / "stdout", beside / "stderr"
        request = {
            "argv": shlex.split(command), "folder": str(folder), "environment": dict(environment),
            "stdout": str(out), "stderr": str(err),
        }  # fmt: skip
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = self._process.stdout.readline()
        assert code, "the process that forks has ended"
        return Done(int(code), out.read_text(), err.read_text())


class _Ending:
    """The end of a process: what is to be done at exit, as ever, but then at once.

    An interpreter that frees all that was imported takes seconds to end, and in a fork it copies it first.
    """

    def __init__(self) -> None:
        self.code = 1  # of what is raised
        atexit.register(self)  # before all others, so it comes last

    def __call__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self.code)


def serve(imports: list[str]) -> None:
    """Fork for each request until there are no more."""
    ending = _Ending()
    for name in imports:
        import_module(name)
    answers = os.fdopen(os.dup(1), "w")  # the children's stdout is another
    for line in iter(sys.stdin.readline, ""):
        assert threading.active_count() == 1, threading.enumerate()
        if (child := os.fork()) == 0:
            answers.close()
            try:
                ending.code = _run(**json.loads(line))
            except SystemExit as end:
                ending.code = int(end.code or 0)
            return  # what else it raises goes where an interpreter lets it go
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        answers.flush()
    ending.code = 0


def _run(argv: list[str], folder: str, environment: dict[str, str], stdout: str, stderr: str) -> int:
    os.chdir(folder)
    os.environ.update(environment)
    tempfile.tempdir = None  # that of the environment
    for descriptor, path in ((0, os.devnull), (1, stdout), (2, stderr)):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, descriptor)
        os.close(file)
    module, *arguments = argv
    if (found := find_spec(module)) is not None and found.submodule_search_locations:
        module += ".__main__"
    sys.argv[:] = [module, *arguments]
    sys.path[0] = folder
    return int(import_module(module).main(arguments))


if __name__ == "__main__":
    serve(sys.argv[1:])
