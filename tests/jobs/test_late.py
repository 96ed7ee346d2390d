"""What MLflow did not take is kept beside the result, and nothing of it is lost without a word."""

import errno
import json
from pathlib import Path

import pytest

import lazypipe as lp
from jobs import _late, covariance
from lazypipe.tracking import Record, TrackedRun

UNTRACKED = ("--source", "rows.npy", "--engine.kind", "serial", "--tracking.enabled", "false", "--out", "out")


pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture
def waiting(place):
    """A result, and beside it what MLflow has not got of the run 0123."""
    assert covariance.main([*UNTRACKED]) == 0
    _late.keep(place / "out", some_run(), Record({"a": "tag"}))
    return place / "out"


def some_run():
    return TrackedRun(None, "http://127.0.0.1:9", "0123", "covariance", "7")


def test_a_result_that_is_replaced_with_what_waits_for_mlflow_says_what_is_lost(waiting, capsys):
    capsys.readouterr()
    config = covariance.CovarianceConfig(
        source="rows.npy", out="out", overwrite=True, engine={"kind": "serial"}, tracking={"enabled": False}
    )
    covariance.plan(config)
    told = (
        "Warning: out: is replaced, and not_logged.json in it, which MLflow has not got yet of run 0123. To keep that, "
        "stop here and send it first: python -m jobs log --result out\n"
    )
    assert capsys.readouterr().err == told
    assert covariance.main([*UNTRACKED, "--overwrite"]) == 0
    assert capsys.readouterr().err == told, "once"
    assert json.loads((waiting / "result.json").read_text())["warnings"] == [told.removeprefix("Warning: ").strip()]
    assert not (waiting / "not_logged.json").exists()
    assert covariance.main([*UNTRACKED, "--overwrite"]) == 0
    assert capsys.readouterr().err == ""


def test_of_a_damaged_one_the_run_is_unknown(waiting):
    (waiting / "not_logged.json").write_text("{")
    assert _late.run_waiting(waiting) == "unknown"


def test_an_unchanged_run_says_what_waits_for_mlflow_and_how_to_send_it(waiting, capsys):
    capsys.readouterr()
    assert covariance.main([*UNTRACKED, "--reuse"]) == 0
    said = capsys.readouterr().out
    assert "unchanged same data, config and code as out" in said
    assert (
        "unlogged  MLflow has not got all of it; what it lacks is in out/not_logged.json: send it with "
        "python -m jobs log --result out\n"
    ) in said
    _late.forget(waiting)
    assert covariance.main([*UNTRACKED, "--reuse"]) == 0
    assert "unlogged" not in capsys.readouterr().out


@pytest.fixture
def full_disk(monkeypatch):
    """Every file gets its first half, and no more."""
    write = Path.write_bytes

    def write_some(path, content):
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_some)


def test_a_full_disk_leaves_nothing_half_written_and_the_old_file_as_it_was(place, full_disk):
    (place / "result.json").write_text("{}")
    with pytest.raises(lp.DataError, match=r"result\.json: cannot be written: the disk is full\. Free some space"):
        _late.write_whole(place / "result.json", b"x" * 1000)
    assert sorted(path.name for path in place.iterdir()) == ["result.json", "rows.npy"]
    assert (place / "result.json").read_text() == "{}"


def test_what_cannot_be_kept_fails_no_run_that_is_done(place, full_disk, monkeypatch, capsys):
    monkeypatch.setattr(_late, "PATIENCE", 0.0)
    (place / "out").mkdir()

    class Away:
        def __getattr__(self, verb):
            raise ConnectionError("Connection refused")

    run = some_run()
    run.client = Away()
    [warning] = _late.finish(run, Record({"a": "tag"}), Path("out"))
    assert warning.startswith("http://127.0.0.1:9: MLflow did not answer (")
    assert "What was not logged cannot be kept (" in warning and "the disk is full" in warning
    assert warning.endswith("result.json has most of it; send it with python -m jobs log --result out")
    assert list((place / "out").iterdir()) == []
