"""What is written appears whole or not at all; conversions keep every bit; generated data are as promised."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from matrix_writers import WRITERS

from lazypipe.atomic import replacing
from lazypipe.blocks import SUPPORTED_DTYPES, Span
from lazypipe.errors import DataError, DiskFullError, MemoryPlanError
from lazypipe.io import open_matrix
from lazypipe.io.beside import open_column
from lazypipe.io.convert import convert
from lazypipe.io.generate import generate
from lazypipe.io.labels import read_labels
from lazypipe.io.recordings import open_recording
from lazypipe.io.spikes import read_spikes
from lazypipe.progress import Progress, StageDone, StageStarted, TaskDone
from lazypipe.results import result_folder
from lazypipe.stores import Place, path_of


def whole(path: Path) -> np.ndarray:
    matrix = open_matrix(path)
    out = np.empty(matrix.shape, matrix.dtype)
    with matrix.open(mapped=True) as reader:
        reader.read(Span(0, out.shape[0]), Span(0, out.shape[1]), out)
    return out


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("this root may not mount a tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("suffix", [".npy", ".arrow"])
@pytest.mark.parametrize("dtype", SUPPORTED_DTYPES)
def test_convert_keeps_every_bit(suffix, dtype, tmp_path):
    values = np.random.default_rng(0).integers(0, 2, (19, 5)).astype(dtype)
    there = convert(values, tmp_path / f"a{suffix}", memory=max(400, values[:4].nbytes * 4))
    back = convert(there, tmp_path / f"b{'.npy' if suffix == '.arrow' else '.arrow'}")
    for path in (there, back):
        assert open_matrix(path).dtype == dtype
        assert whole(path).tobytes() == values.tobytes()


@pytest.mark.parametrize("format", WRITERS)
def test_convert_reads_every_format(format, tmp_path):
    values = np.random.default_rng(0).standard_normal((11, 5)).astype(np.float32)
    source = WRITERS[format](tmp_path, values)
    assert whole(convert(source, tmp_path / "out" / "x.npy")).tobytes() == values.tobytes()


def test_convert_emits_its_stage(tmp_path):
    events = []
    convert(np.ones((10, 4), np.float32), tmp_path / "a.npy", memory=64, progress=Progress((events.append,)))
    assert isinstance(events[0], StageStarted)
    assert events[0].n_tasks == 5
    assert events[1:-1] == [TaskDone(i, 5) for i in range(1, 6)]
    assert isinstance(events[-1], StageDone)


def test_convert_refuses(tmp_path, monkeypatch):
    values = np.ones((10, 4), np.float32)
    path = convert(values, tmp_path / "a.npy")
    with pytest.raises(
        DataError, match=r"a\.npy: exists\. Pass --overwrite \(overwrite=True\) to replace it, or another name\."
    ):
        convert(values, path)
    convert(values * 2, path, overwrite=True)
    assert whole(path)[0, 0] == 2
    with pytest.raises(DataError, match=r"'\.csv'.*\.npy, \.arrow or \.zarr"):
        convert(values, tmp_path / "a.csv")
    with pytest.raises(MemoryPlanError, match=r"needs 16 bytes.*memory is 3"):
        convert(values, tmp_path / "b.npy", memory=3)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(DataError, match=r"needs 6.*KiB of disk, 10B are free"):
        convert(values, tmp_path / "c.npy")
    assert names(tmp_path) == ["a.npy"]


@pytest.mark.parametrize("suffix", [".npy", ".arrow", ".zarr"])
def test_a_disk_that_fills_up_leaves_nothing(suffix, small_disk, monkeypatch):
    plenty = shutil._ntuple_diskusage(1 << 40, 0, 1 << 40)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: plenty)
    with pytest.raises(DataError, match="disk is full"):
        convert(np.ones((1000, 1000), np.float32), small_disk / f"a{suffix}", memory=1 << 17)
    with pytest.raises(DataError, match="disk is full"):
        generate(small_disk / "g.npy", 1000, 1000)
    assert names(small_disk) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_write_errors_are_told(code, tmp_path):
    with pytest.raises(DataError, match=r"x: cannot be written: ") as caught, replacing(tmp_path / "x"):
        raise OSError(code, os.strerror(code))
    assert "\n" not in str(caught.value)


@pytest.fixture
def staging(tmp_path, monkeypatch):
    """A temporary folder of its own for what goes to a store."""
    (tmp_path / "staging").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "staging"))
    return tmp_path / "staging"


def test_a_disk_that_is_full_on_the_way_to_a_store_is_told_as_such(staging):
    """Whoever takes files from a folder has to tell it from a file that is at fault."""
    place = path_of(f"memory://{staging.parent.name}/m.npy")
    said = r"^memory://\S+/m\.npy: cannot be written on its way, in \S+ \(\$TMPDIR\): the disk is full\."
    with pytest.raises(DiskFullError, match=said), replacing(place):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(DiskFullError, match=r"needs .* of disk on its way"), replacing(place, n_bytes=1 << 60):
        pass
    staging.rmdir()  # it is empty
    staging.write_bytes(b"")
    with pytest.raises(DataError, match=r"\(\$TMPDIR\): a folder of the path is a file"), replacing(place):
        pass


def test_what_convert_returns_can_be_read_also_where_it_is_in_a_store(staging):
    values = np.arange(5, dtype=np.int16).reshape(5, 1)
    place = convert(values, f"memory://{staging.parent.name}/y.npy")
    assert isinstance(place, Place)
    assert open_matrix(place).shape == open_column(place).shape == open_recording(place).shape == (5, 1)
    np.testing.assert_array_equal(read_labels(place), values[:, 0])
    np.testing.assert_array_equal(read_spikes(place, counts=True)[0], np.repeat(np.arange(5), np.arange(5)))
    assert whole(convert(place, staging.parent / "back.npy")).tobytes() == values.tobytes()


def test_a_failure_leaves_what_was_there(tmp_path):
    for target, write in ((tmp_path / "file", Path.touch), (tmp_path / "folder", Path.mkdir)):
        with replacing(target) as partial:
            write(partial)
        before = names(tmp_path)
        with pytest.raises(KeyError), replacing(target, overwrite=True) as partial:
            write(partial)
            raise KeyError
        assert names(tmp_path) == before


def test_the_root_is_no_result_that_can_be_replaced():
    with pytest.raises(DataError, match="^/: (is no result of a job|cannot be written)"):  # root may write there
        result_folder("/", "pca", overwrite=True)


def test_a_folder_replaces_a_folder(tmp_path):
    for content in ("one", "two"):
        with replacing(tmp_path / "made" / "result", overwrite=True) as partial:
            partial.mkdir()
            (partial / content).touch()
    assert names(tmp_path / "made") == ["result"]
    assert names(tmp_path / "made" / "result") == ["two"]


@pytest.mark.parametrize("write", [Path.touch, Path.mkdir], ids=["file", "folder"])
def test_an_output_goes_behind_a_link_and_is_written_beside_what_it_leads_to(write, tmp_path):
    (tmp_path / "kept").mkdir()
    write(tmp_path / "kept" / "three")
    (tmp_path / "links").mkdir()
    link, dangling = tmp_path / "links" / "latest", tmp_path / "links" / "next"
    link.symlink_to(Path("..", "kept", "three"))
    dangling.symlink_to(Path("..", "kept", "four"))
    before = os.stat(link).st_ino
    for path in (link, dangling):
        with pytest.raises(DataError, match=f"{path.name}: exists"), replacing(path):
            pass
        with replacing(path, overwrite=True) as partial:
            assert partial.parent == tmp_path / "kept"
            write(partial)
        assert path.is_symlink() and path.exists()
    assert os.stat(link).st_ino != before
    assert names(tmp_path / "kept") == ["four", "three"] and names(tmp_path / "links") == ["latest", "next"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    script = (
        "import os, signal, sys, pathlib\nfrom lazypipe.atomic import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as partial:\n"
        "    partial.mkdir()\n    (partial / 'half').touch()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    target = tmp_path / "x"
    root = Path(__file__).parents[2]
    died = subprocess.run([sys.executable, "-c", script, target], cwd=root, check=False)
    assert died.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 1
    with replacing(target) as partial:
        partial.touch()
    assert names(tmp_path) == ["x"]


def test_what_an_earlier_process_of_the_same_number_left_is_not_taken_over(staging, tmp_path):
    """In containers of one name that share a disk, every run may be process 1."""
    targets = tmp_path / "x", path_of(f"memory://{tmp_path.name}/x")
    partials = []
    for target in targets:
        with replacing(target) as partial:
            partial.mkdir()
            partials.append(partial)
    (tmp_path / "x").rename(partials[0].with_name(partials[0].name.replace(".partial-", ".old-")))
    for target, partial in zip(targets, partials, strict=True):
        partial.mkdir(parents=True)
        (partial / "half").touch()
        with replacing(target, overwrite=True) as found:
            assert found == partial and not found.exists()
            assert not isinstance(target, Path) or target.is_dir()  # what was set aside is back
            found.mkdir()
            (found / "whole").touch()
    assert names(tmp_path) == ["staging", "x"] and names(tmp_path / "x") == ["whole"] and names(staging) == []


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(40, 700), (300, 30)])
def test_generated_spectrum_is_exact(shape, dtype, tmp_path):
    spectrum = [5.0, 2.0, 1.0, 0.25]
    path = generate(tmp_path / "g.npy", *shape, spectrum=spectrum, mean=3.0, dtype=dtype, seed=4)
    values = whole(path).astype(float)
    centred = values - values.mean(axis=0)
    variances, vectors = np.linalg.eigh(centred.T @ centred / (shape[0] - 1))
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(variances[::-1][:4], spectrum, rtol=tolerance)
    assert variances[-5] < tolerance
    components = np.load(tmp_path / "g.components.npy")
    assert components.shape == (4, shape[1])
    np.testing.assert_allclose(np.abs(np.sum(components * vectors[:, ::-1][:, :4].T, axis=1)), 1, atol=1e-4)
    np.testing.assert_allclose(np.load(tmp_path / "g.mean.npy"), values.mean(axis=0), atol=1e-5)
    np.testing.assert_array_equal(np.load(tmp_path / "g.truth.npz")["explained_variance"], spectrum)


def test_generated_bytes_do_not_depend_on_threads(tmp_path):
    kinds = [{"noise": 0.5, "mean": 1.0, "seed": 7, "dtype": dtype} for dtype in ("float16", "float32")]
    for kind in kinds:
        first = generate(tmp_path / "a.npy", 600, 20_000, rank=3, n_threads=1, overwrite=True, **kind)
        second = generate(tmp_path / "b.npy", 600, 20_000, rank=3, n_threads=3, overwrite=True, **kind)
        for suffix in (".npy", ".components.npy", ".mean.npy"):
            one, two = first.with_suffix(suffix), second.with_suffix(suffix)
            assert one.read_bytes() == two.read_bytes()
    noise = whole(first) - np.load(tmp_path / "a.mean.npy")
    assert 0.49 < noise[:, ::50].std() < 0.55
    other = generate(tmp_path / "c.npy", 600, 20_000, rank=3, noise=0.5, mean=1.0, seed=8)
    assert other.read_bytes() != first.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"dtype": "int16"}, "dtype int16"),
        ({"dtype": "nonsense"}, "unknown dtype 'nonsense'"),
        ({"rank": 10}, "rank 10"),
        ({"rank": 0}, "rank 0"),
        ({"spectrum": "flat"}, "'flat'"),
        ({"spectrum": [1.0, -1.0]}, "negative"),
        ({"spectrum": [1.0], "rank": 2}, "rank is 2"),
        ({"noise": -1.0}, "noise -1.0"),
        ({"seed": -1}, "seed -1"),
        ({"n_rows": 1}, "too small"),
        ({"target": "x.arrow"}, r"\.arrow"),
    ],
)
def test_generate_refuses(arguments, told, tmp_path):
    arguments = {"target": "x.npy", "n_rows": 10, "n_columns": 20, **arguments}
    target = tmp_path / arguments.pop("target")
    with pytest.raises(DataError, match=told):
        generate(target, **arguments)
    assert names(tmp_path) == []
