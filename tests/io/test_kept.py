"""What readers share is one of a kind, and goes once nobody has it."""

import threading

import pytest
from sparse_writers import SPARSE_WRITERS, random_rows

import lazypipe as lp
from lazypipe.engines.tasks import emptied_base
from lazypipe.io import npz, open_matrix
from lazypipe.io.kept import Kept, release_kept


class Value:
    """Something that can be held."""


def test_what_a_reader_holds_is_found_again_after_a_release():
    kept, made = Kept[Value](), []

    def make():
        made.append(1)
        return Value()

    reader = kept.get("a", make)
    kept.release()
    assert kept.get("a", make) is reader and len(made) == 1
    kept.get("b", make)
    assert kept.get("a", make) is reader and len(made) == 2
    del reader
    kept.release()
    kept.get("a", make)
    assert len(made) == 3


def test_a_release_does_not_wait_for_what_is_being_made():
    kept, begun, end = Kept[Value](), threading.Event(), threading.Event()

    def make():
        begun.set()
        end.wait(60)
        return Value()

    thread = threading.Thread(target=kept.get, args=("a", make))
    thread.start()
    try:
        assert begun.wait(10)
        release = threading.Thread(target=release_kept, daemon=True)
        release.start()
        release.join(10)
        assert not release.is_alive()
    finally:
        end.set()
        thread.join()


def open_and_close(kind):
    lp.open_engine(kind, **({"workers": 1} if kind == "dask" else {})).close()


ENDS = {
    "serial": lambda: open_and_close("serial"),
    "dask": lambda: open_and_close("dask"),
    "a worker that another client finds": lambda: emptied_base(1),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_decompressed_file_goes_with_the_engine(tmp_path, end):
    matrix = open_matrix(SPARSE_WRITERS["npz-compressed"](tmp_path, random_rows((30, 20))))
    with matrix.open():
        pass
    assert len(npz.DECOMPRESSED._held) == 1, "kept for the next pass"
    ENDS[end]()
    assert len(npz.DECOMPRESSED._held) == 0
