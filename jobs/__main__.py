"""``python -m jobs``: list the jobs; ``python -m jobs NAME --option value``: run one."""

from __future__ import annotations

import sys
from importlib import import_module

from jobs import JOBS
from jobs._cli import piped, reported
from lazypipe.checks import nearest
from lazypipe.errors import ConfigError

USAGE = "usage: python -m jobs NAME [--config FILE] [--option value ...]\n\njobs:\n{jobs}\n\n{more}"
MORE = "python -m jobs NAME --help tells the options of one job; --debug shows tracebacks."


@piped
def main(argv: list[str] | None = None) -> int:
    """Hand the command line to the job it names; return the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(USAGE.format(jobs="\n".join(f"  {job:<12}{what}" for job, what in JOBS.items()), more=MORE))
        return 0
    if name not in JOBS:
        error = ConfigError(f"{name}: no such job{nearest(name, JOBS)}. Jobs: {', '.join(JOBS)}.")
        return reported(error, debug="--debug" in arguments)
    code: int = import_module(f"jobs.{name}").main(arguments[1:])
    return code


if __name__ == "__main__":
    sys.exit(main())
