"""Folders that one run at a time may use: others are told who does, or why nobody can."""

import errno
import os

import pytest

from lazypipe import building
from lazypipe.building import LOCK, held
from lazypipe.errors import DataError

WORDS = ("cannot hold a state", "another run holds this state", "pass another --state")


def test_a_second_one_is_told_who_holds_it_and_the_next_one_has_it(tmp_path):
    with held(tmp_path / "state", *WORDS):
        said = rf"state: another run holds this state \(process {os.getpid()} of .*\)\. Wait for it, or pass another"
        with pytest.raises(DataError, match=said), held(tmp_path / "state", *WORDS):
            pass
    with held(tmp_path / "state", *WORDS):
        assert (tmp_path / "state" / LOCK).exists()


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "state").touch()
    with pytest.raises(DataError, match=r"state: cannot hold a state \(it is a file\)\. Pass another --state\."):
        held(tmp_path / "state", *WORDS).__enter__()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_in_one_line(code, tmp_path, monkeypatch):
    """Such as Lustre that is mounted without ``flock``."""

    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(building.fcntl, "flock", flock)
    said = r"state: cannot hold a state \(its file system has no locks: .*\)\. Pass another --state\."
    with pytest.raises(DataError, match=said) as caught, held(tmp_path / "state", *WORDS):
        pass
    assert "\n" not in str(caught.value)
