"""What Prefect must know: the work pool, the limit ``gpu``, the deployments."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote

from flows.stack.config import StackConfig
from flows.stack.processes import MARK, last_line, log_of
from flows.stack.reachable import login
from flows.stack.web import ask_json
from lazypipe.atomic import replacing
from lazypipe.errors import EngineError

ROOT = Path(__file__).resolve().parents[2]
GPU_LIMIT = "gpu"  # the concurrency limit that flow runs which train on a GPU take a slot of
GPU_SLOTS = 1
MAKE_GPU_LIMIT = ("gcl", "create", GPU_LIMIT, "--limit", str(GPU_SLOTS))  # the same by Prefect's command line
DEPLOY = "flows.deploy"
DEPLOY_SECONDS = 320  # longer than that waits for Prefect itself, so that it tells which of its steps is slow


def register(config: StackConfig) -> None:
    """Make the work pool and the limit where they are missing; OSError where Prefect takes neither yet."""
    make_pool(config.prefect_api, config.pool)
    make_gpu_limit(config.prefect_api)


def make_pool(api: str, pool: str) -> None:
    """A work pool whose flow runs are processes of the worker's machine."""
    if missing(f"{api}/work_pools/{quote(pool, safe='')}"):
        ask_json(f"{api}/work_pools/", {"name": pool, "type": "process"}, headers=login())


def make_gpu_limit(api: str) -> None:
    """One flow run at a time trains on a GPU."""
    if missing(f"{api}/v2/concurrency_limits/{GPU_LIMIT}"):
        limit = {"name": GPU_LIMIT, "limit": GPU_SLOTS, "active": True}
        ask_json(f"{api}/v2/concurrency_limits/", limit, headers=login())


def missing(url: str) -> bool:
    """Whether Prefect does not know what ``url`` names."""
    try:
        ask_json(url, headers=login())
    except HTTPError as error:
        if error.code == 404:
            return True
        raise
    return False


def deploy(config: StackConfig, env: Mapping[str, str]) -> bool:
    """Register the deployments of ``prefect.yaml``; False where there are none, or these very ones are registered."""
    project = config.project_place
    file, done = project / "prefect.yaml", config.place / "deployed"
    if not file.exists():
        return False
    identity = f"{project} {fingerprint(file)}"
    if done.exists() and done.read_text() == identity:
        return False
    log = log_of(config.place, "deploy")
    with open(log, "ab") as output:
        output.write(f"--- {DEPLOY}\n".encode())
        output.flush()
        try:
            code: int | None = subprocess.run(
                [sys.executable, "-m", DEPLOY],
                check=False,
                cwd=project,
                env={**env, "PWD": str(project), MARK: str(config.place)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=DEPLOY_SECONDS,
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
    if code is None:
        raise EngineError(f"{file}: was not registered within {DEPLOY_SECONDS} s. The servers are up; see {log}.")
    if code:
        why = last_line(log).removeprefix("ConfigError: ").removeprefix(f"{file.name}: ")
        raise EngineError(f"{file}: was not registered: {why}. Mend it and call up again; the servers stay up.")
    with replacing(done, overwrite=True) as partial:
        partial.write_text(identity)
    return True


def fingerprint(file: Path) -> str:
    """Of a ``prefect.yaml`` and of the code that says which parameters its flows take."""
    sources = [path for folder in ("flows", "jobs") for path in sorted((ROOT / folder).glob("*.py"))]
    total = hashlib.sha256()
    for path in [file, *sources]:
        total.update(path.read_bytes())
    return total.hexdigest()
