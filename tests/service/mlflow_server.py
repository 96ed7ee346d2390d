"""A real ``mlflow server`` on SQLite, which tests kill and start again."""

import os
import signal
import sys
from pathlib import Path

import httpx
from processes import Processes, free_port, ready

from flows.stack.servers import NO_LANGUAGE_MODELS

LEAN = {"MLFLOW_DISABLE_TELEMETRY": "true", **NO_LANGUAGE_MODELS}
SECONDS = 300  # to start, on a machine that is busy


class MLflowServer(Processes):
    """Its database and artifacts lie in ``folder``; it keeps its port from start to start."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | LEAN
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None  # where it is up

    def serve(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", self.port]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--workers", "1"]
        self.process = self.start(*command, "--artifacts-destination", self.folder / "artifacts")
        ready(self.process, self.answers, SECONDS)

    def answers(self) -> bool:
        """Whether it does."""
        try:
            return httpx.get(f"{self.uri}/health", timeout=2, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """SIGKILL, to all of its processes."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(20)
            self.process = None
