"""The job that compares devices: its table, and what it refuses."""

import numpy as np
import pytest

from jobs import devices
from jobs.devices import DevicesConfig, main, run
from lazypipe.nets import measuring

TINY = ("--rows", "20000", "--columns", "64", "--hidden", "4", "--batch-size", "200", "--threads", "1")


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(measuring, "STEP_SECONDS", 0.01)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_the_processor_is_timed_and_why_no_gpu_is(capsys):
    assert main([*TINY]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["device", "products", "step", "samples/s"]
    assert [line.split()[3] for line in lines[:2]] == ["float32", "bfloat16"]
    assert all(line.startswith("cpu (1 threads) ") for line in lines[:2])
    assert lines[2].startswith("no GPU: torch") and lines[2].endswith("so the processor alone was timed")
    assert len(lines) == 3


def test_what_is_measured_fits_together():
    config = DevicesConfig(rows=20000, columns=64, hidden=(4,), batch_size=200, threads=1)
    plain, rounded = run(config)
    assert (plain.precision, rounded.precision, plain.batch_rows) == ("float32", "bfloat16", 200)
    assert plain.resident_seconds > 0 and plain.streamed_seconds > 0 and 0 <= plain.waiting <= 1
    assert plain.device_memory == 0
    assert (rounded.resident_seconds is None) == (rounded.step_seconds > plain.step_seconds)


def test_own_rows_and_a_batch_of_all_have_no_streamed_epoch(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((40, 3), np.float32))
    np.save(tmp_path / "y.npy", np.arange(40) % 2)
    config = DevicesConfig(source=str(tmp_path / "x.npy"), labels=str(tmp_path / "y.npy"), batch_size="all", threads=1)
    pace = next(iter(run(config)))
    assert pace.streamed_seconds is None and pace.waiting is None and pace.resident_seconds > 0
    assert devices._cells(pace)[5:] == ("-", "-", "-")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--device", "cuda"), "device: cuda was asked for, but torch"),
        (("--labels", "y.npy"), "--labels: there is no source that they are of"),
        (("--source", "no.npy"), "no.npy: no such file or directory"),
    ],
)
def test_refusals_are_a_line(capsys, given, said):
    assert main([*TINY, *given]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
