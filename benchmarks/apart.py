"""A contender in a process of its own: the lines of JSON it printed, and what became of it."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile


def in_own_process(command: list[str], limit: float) -> tuple[list[dict], str]:
    """Run ``command``; its lines of JSON, and how it ended if not by itself. Its children end with it, or with us."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True)
        try:
            output, ended = process.communicate(timeout=limit)[0], ""
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, ended = process.communicate()[0], f"> {limit:g} s, preparation included"
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        said.seek(0)
        errors = [line for line in said.read().splitlines() if line.strip()]
    if not ended and process.returncode:
        killed = process.returncode == -signal.SIGKILL
        ended = "killed by the system: out of memory" if killed else (errors or ["failed"])[-1]
    lines = []
    for line in output.splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    return [line for line in lines if isinstance(line, dict)], ended
