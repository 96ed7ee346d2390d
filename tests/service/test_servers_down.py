"""Servers that are not there, are silent, are ill, or whose clock is off: one line, within ten seconds."""

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from prefect_server import ROOT
from processes import free_port
from web_servers import answering, silent

from flows.stack.clocks import ahead, complaint
from flows.stack.reachable import require_prefect
from lazypipe.errors import ConfigError, EngineError

SECONDS = 10.0
BUSY = 6.0  # how much longer a command may take where others share the machine: importing is most of it


@contextmanager
def serving(status: int = 200, ahead: float = 0.0, body: bytes = b"true"):
    """The address of a server that gives one answer, by a clock that may be off."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response_only(status)
            self.send_header("Date", formatdate(time.time() + ahead, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with answering(Answers) as address:
        yield f"{address}/api"


def nobody() -> str:
    """An address where nobody listens."""
    return f"http://127.0.0.1:{free_port()}/api"


def told(*words: str, cwd: Path, **variables: object) -> tuple[subprocess.CompletedProcess, float]:
    """A command of Python that has ended, and the seconds it took."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, *words],
        check=False,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | {name: str(value) for name, value in variables.items()},
        capture_output=True,
        text=True,
        timeout=120,
    )
    seconds = time.monotonic() - begun
    print(f"{seconds:.1f} s")
    return done, seconds


def refusal(url: str | None, wanted: type[Exception] = EngineError) -> str:
    """The one line with which an address of Prefect is refused, within seconds."""
    begin = time.monotonic()
    with pytest.raises(wanted) as caught:
        require_prefect(url)
    assert time.monotonic() - begin < SECONDS
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("kind", ["nobody", "silent"])
def test_a_prefect_server_that_is_down_is_told_with_how_to_start_it(kind, tmp_path):
    (tmp_path / "prefect.yaml").write_text((ROOT / "prefect.yaml").read_text())
    (tmp_path / "flows").symlink_to(ROOT / "flows")
    with silent() as port:
        url = nobody() if kind == "nobody" else f"http://127.0.0.1:{port}/api"
        done, seconds = told("-m", "flows.deploy", cwd=tmp_path, PREFECT_API_URL=url, PREFECT_HOME=tmp_path / "home")
    assert seconds < SECONDS * BUSY
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"EngineError: {url}: no Prefect server answers")
    assert "make up" in line and "python -m flows.stack start prefect" in line


def test_an_mlflow_server_that_is_down_is_told_with_how_to_start_it(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(20, 4)))
    url = nobody().removesuffix("/api")
    job = ("-m", "jobs", "covariance", "--source", "x.npy", "--engine.kind", "serial")
    done, seconds = told(*job, cwd=tmp_path, MLFLOW_TRACKING_URI=url)
    assert seconds < SECONDS * BUSY
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert url in line and "MLflow" in line and "make up" in line


def test_a_server_that_answers_in_time_is_taken_with_its_address():
    with serving() as url:
        assert require_prefect(url) == url


def test_a_silent_server_is_told():
    with silent() as port:
        url = f"http://127.0.0.1:{port}/api"
        assert refusal(url).startswith(f"{url}: no Prefect server answers (timed out)")


def test_a_server_that_is_ill_and_one_that_wants_to_know_who_asks_are_told_apart():
    with serving(500) as url:
        assert "answers 500" in refusal(url)
    with serving(401) as url:
        assert "PREFECT_API_AUTH_STRING" in refusal(url)


def test_no_address_and_one_that_is_none_are_told(monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert refusal(None, ConfigError).startswith("PREFECT_API_URL: is not set")
    assert "'localhost:4200' is no address" in refusal("localhost:4200", ConfigError)


def test_a_password_in_the_address_is_not_told():
    host = nobody().removeprefix("http://")
    assert "sesame-open" not in refusal(f"http://ali:sesame-open@{host}")


@pytest.mark.parametrize(("off", "said"), [(3600, r"3,(59\d|600) s ahead of"), (-90, r"(8\d|90) s behind")])
def test_a_server_whose_clock_is_off_is_named_with_the_difference(off, said):
    with serving(ahead=off) as url:
        line = refusal(url)
    assert re.match(rf"Prefect at {url}: its clock is {said} this machine's", line), line


def test_a_clock_is_off_by_the_least_that_explains_its_answer():
    assert ahead(100, 101, sent=100.2, received=100.4) == 0
    assert ahead(100, 101, sent=95, received=104) == 0  # a slow answer tells little
    assert ahead(100, 101, sent=90, received=91) == 9
    assert ahead(100, 101, sent=110, received=111) == -9


def test_a_difference_of_five_seconds_is_let_pass():
    assert complaint("mlflow", 5.0) == "" and complaint("mlflow", -5.0) == ""
    assert complaint("mlflow", 5.5) == "mlflow: its clock is 6 s ahead of this machine's. Set both by NTP."
