"""``python -m flows.deploy``: check ``prefect.yaml``, then make what its deployments need and register them.

They need their work pools, the concurrency limit ``gpu``, and an automation that marks a run as crashed whose process
has been silent for long, as its machine may be gone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError

from flows.stack.reachable import require_prefect
from jobs._cli import Parser, piped, reported
from lazypipe.errors import ConfigError, EngineError, LazypipeError
from lazypipe.secrets import hidden

FILE = "prefect.yaml"
SECONDS = 300


@piped
def main(argv: list[str] | None = None) -> int:
    """The exit code: 0, or 2 with a line for each fault."""
    parser = Parser(prog="python -m flows.deploy", description=__doc__)
    parser.add_argument("--check", action="store_true", default=False, help="check the file, and register nothing")
    parser.add_argument("--file", metavar="FILE", default=FILE, help=f"another file (default: {FILE})")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")  # read by Prefect when it is imported, which is below
    try:
        options = parser.parse_args(argv)
        return deploy(Path(options.file), options.check)
    except (LazypipeError, KeyboardInterrupt) as error:
        return reported(error, debug=False)


def deploy(path: Path, only_check: bool) -> int:
    """Tell every fault of the file; without one, register its deployments."""
    api = "" if only_check else require_prefect().rstrip("/")  # before Prefect is imported, which takes seconds
    from flows._project import checked

    found = checked(path)
    for fault in found.faults:
        print(f"ConfigError: {hidden(fault)}.", file=sys.stderr)
    if found.faults:
        return 2
    count = len(found.deployments)
    print(f"{path}: {count} deployment{'s' if count != 1 else ''}, no fault")
    if only_check:
        return 0
    from flows._vanished import make_automation
    from flows.stack.registering import make_gpu_limit, make_pool

    try:
        for pool in dict.fromkeys(deployment.work_pool.name for deployment in found.deployments):
            make_pool(api, pool)
        make_gpu_limit(api)
        make_automation(api)
    except HTTPError as error:
        raise EngineError(f"{hidden(api)}: answers {error.code} to {hidden(error.url)}. Look at its log.") from error
    except OSError as error:
        raise EngineError(f"{hidden(api)}: the Prefect server has gone ({error}). Start it again.") from error
    _register(path)
    print("registered; a worker carries their runs out: that of `make up`, or `prefect worker start --pool NAME`")
    return 0


def _register(path: Path) -> None:
    """What the file says, by Prefect's own command."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", path.name]
    folder = path.absolute().parent
    environment = {**os.environ, "PWD": str(folder), "PREFECT_LOGGING_LEVEL": "INFO"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        what = f"its deployments were not registered within {SECONDS} s"
        raise EngineError(f"{path}: {what}. Look at the log of the Prefect server, and try again.") from error
    if done.returncode:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise ConfigError(f"{path}: Prefect did not take it: {hidden(said[-1] if said else 'it said nothing')}")


if __name__ == "__main__":
    sys.exit(main())
