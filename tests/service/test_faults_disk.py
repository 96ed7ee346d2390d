"""A disk that fills up under a worker's hands: one line, nothing half-written, and the same command goes on."""

import contextlib
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from service.clusters import DaskCluster, Heard

import lazypipe as lp
from lazypipe.io import tile_store

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="a small file system of its own (tmpfs) needs Linux and root"
)
SIZE = 48 * 2**20


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """2,000 x 3,000: tiles of 18 MB and more in all."""
    path = tmp_path_factory.mktemp("wide") / "wide.npy"
    np.save(path, np.random.default_rng(0).normal(3, 1, (2_000, 3_000)).astype(np.float32))
    return path


def fill(folder):
    """Leave room for less than a tile."""
    with open(folder / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**16))


@pytest.mark.parametrize("room", ["none", "some"])
def test_tiles_on_a_disk_that_fills_up(small_disk, wide, tmp_path, room):
    out = small_disk / "cov.zarr"
    heard = Heard(3, lambda: fill(small_disk))
    # "some": enough at first sight, which is gone while the tile is written
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])} if room == "some" else {}
    (tmp_path / "sitecustomize.py").write_text(
        "import lazypipe.atomic\nlazypipe.atomic.require_space = lambda path, n_bytes: None\n"
    )
    with DaskCluster(tmp_path) as cluster:
        cluster.worker("one", **env)
        with cluster.engine(1, heard, memory="32MiB") as engine:
            with pytest.raises(lp.DataError) as caught:
                lp.covariance(str(wide), out=out, engine=engine)
            told = str(caught.value)
            print(told)
            assert "\n" not in told
            where = rf"the worker one: {small_disk}/\S*cov\.zarr\S*/covariance/c/\d+/\d+: "
            why = {
                "none": r"needs \S+iB of disk, \S+ are free\. Free",
                "some": r"cannot be written: the disk is full\. F",
            }
            assert re.match(where + why[room], told)
            assert not out.exists()
            (partial,) = (path for path in small_disk.iterdir() if path.is_dir())
            chunks = {path.stat().st_size for path in (partial / "covariance" / "c").glob("*/*")}
            assert len(chunks) == 1  # each is whole
            kept = {path: path.stat().st_mtime_ns for path in (partial / "covariance" / "c").glob("*/*")}
            (small_disk / "filler").unlink()
            found = lp.covariance(str(wide), out=out, engine=engine).covariance
            assert len(kept) >= 3
            for path, written in kept.items():  # those that were there are not made again
                assert (out / path.relative_to(partial)).stat().st_mtime_ns == written
            assert not list(out.rglob(".*partial*"))
    with lp.open_engine("serial", memory="32MiB") as engine:
        wanted = lp.covariance(str(wide), out=tmp_path / "wanted.zarr", engine=engine).covariance
    np.testing.assert_array_equal(found[:, :], wanted[:, :])
    assert tile_store.attributes_of(out) == tile_store.attributes_of(tmp_path / "wanted.zarr")
