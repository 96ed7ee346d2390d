"""``COMMAND | head``: who reads what a command prints may go; then it ends as by SIGPIPE, without a word."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jobs._cli import piped

ROOT = Path(__file__).resolve().parents[1]
GENERATE = "generate --target made.npy --n-rows 20 --n-columns 4 --seed 0"
COMMANDS = [
    "jobs --help",
    "jobs pca --help",
    "jobs plan covariance --source rows.npy",
    f"jobs {GENERATE}",
    "flows.stack env --folder stack",
    "flows.stack commands --folder stack",
    "flows.stack up --help",
    "flows.deploy --help",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_whose_reader_has_gone_says_nothing(command, tmp_path):
    np.save(tmp_path / "rows.npy", np.ones((20, 4), np.float32))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command.split()],
            check=False,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    finally:
        os.close(writer)
    assert done.stderr == ""
    passed_over = [0] if "--help" in command else []  # by argparse, where the help is long
    assert done.returncode in [128 + signal.SIGPIPE, *passed_over]
    assert (tmp_path / "made.npy").exists() == ("generate" in command), "what was to be done is done"


def test_another_pipe_that_breaks_is_an_error():
    @piped
    def main():
        raise BrokenPipeError("to a server")

    with pytest.raises(BrokenPipeError, match="to a server"):
        main()


@pytest.mark.parametrize("code", [0, 2])
def test_the_code_is_that_of_the_command_where_it_is_read(code):
    assert piped(lambda: code)() == code
