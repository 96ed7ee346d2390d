"""Folders of images become rows and labels; what is no image, or another size, is named in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.convert import ConvertConfig, run
from lazypipe.blocks import Span
from lazypipe.errors import DataError, MemoryPlanError
from lazypipe.io import open_matrix
from lazypipe.io.convert import convert
from lazypipe.io.images import SUFFIXES, open_images
from lazypipe.io.labels import read_labels
from lazypipe.progress import Progress, TaskDone

CLASSES = ("A", "B", "ж", "ü d")


def pixels(seed: int, height: int = 3, width: int = 5, depth: int = 0) -> np.ndarray:
    shape = (height, width, depth) if depth else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path: Path, values: np.ndarray, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    (image if mode is None else image.convert(mode)).save(path)
    return path


def letters(folder: Path, n: int = 6) -> Path:
    """``n`` images in each of CLASSES, whose first pixels tell class and number."""
    for i, name in enumerate(CLASSES):
        for j in range(n):
            values = pixels(100 * i + j)
            values[0, :2] = i, j
            save(folder / "letters" / name / f"{j:02}.png", values)
    return folder / "letters"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_classes_by_hand(tmp_path):
    target = convert(letters(tmp_path), tmp_path / "out" / "x.npy")
    rows, labels = np.load(target), np.load(tmp_path / "out" / "x.labels.npy")
    assert (rows.shape, rows.dtype) == ((24, 15), np.uint8)
    assert (labels.shape, labels.dtype) == ((24,), np.dtype("<U3"))
    seen = set()
    for row, label in zip(rows, labels, strict=True):
        i, j = row[:2].tolist()
        assert CLASSES[i] == label
        expected = pixels(100 * i + j).reshape(-1)
        np.testing.assert_array_equal(row[2:], expected[2:])
        seen.add((i, j))
    assert len(seen) == 24
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "x.labels.npy", n_rows=24), labels)


def test_the_order_is_a_shuffle_and_the_same_everywhere(tmp_path):
    """Neither first rows nor every k-th miss a class; the order hangs on the names below the folder alone."""
    folder = letters(tmp_path, n=100)
    order = open_images(folder)[0].names
    assert order[:4] == ("A/77.png", "ü d/30.png", "A/08.png", "ж/32.png")
    _, labels = open_images(folder.rename(tmp_path / "elsewhere"))
    for part in (labels[:40], labels[-40:], labels[::4], labels[1::10]):
        values, counts = np.unique(part, return_counts=True)
        assert values.tolist() == sorted(CLASSES)
        assert counts.min() > len(part) / 16


def test_no_subfolders_no_labels_and_the_order_of_names(tmp_path):
    for i in (3, 1, 2):
        save(tmp_path / "flat" / f"{i}.png", pixels(i))
    target = convert(tmp_path / "flat", tmp_path / "x.npy")
    np.testing.assert_array_equal(np.load(target), [pixels(i).reshape(-1) for i in (1, 2, 3)])
    assert names(tmp_path) == ["flat", "x.npy"]


@pytest.mark.parametrize("suffix", [".arrow", ".zarr"])
def test_other_targets(suffix, tmp_path):
    folder = letters(tmp_path)
    expected = np.load(convert(folder, tmp_path / "x.npy"))
    matrix = open_matrix(convert(str(folder) + "/", tmp_path / f"y{suffix}", memory=4000))
    out = np.empty(matrix.shape, matrix.dtype)
    with matrix.open() as reader:
        reader.read(Span(0, 24), Span(0, 15), out)
    np.testing.assert_array_equal(out, expected)
    assert (tmp_path / "y.labels.npy").read_bytes() == (tmp_path / "x.labels.npy").read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".tif", ".pgm", ".PNG"])
def test_lossless_formats(suffix, tmp_path):
    save(tmp_path / "flat" / f"a{suffix}", pixels(0))
    np.testing.assert_array_equal(np.load(convert(tmp_path / "flat", tmp_path / "x.npy"))[0], pixels(0).reshape(-1))


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_formats(suffix, tmp_path):
    path = save(tmp_path / "flat" / f"a{suffix}", np.full((8, 8), 77, np.uint8))
    with Image.open(path) as image:
        expected = np.asarray(image.convert("L")).reshape(-1)
    np.testing.assert_array_equal(np.load(convert(tmp_path / "flat", tmp_path / "x.npy"))[0], expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "LA", "RGBA"])
def test_grey_and_colour_of_every_mode(mode, tmp_path):
    path = save(tmp_path / "flat" / "a.png", pixels(0, depth=3), mode)
    with Image.open(path) as image:
        grey, colour = (np.asarray(image.convert(to)).reshape(-1) for to in ("L", "RGB"))
    np.testing.assert_array_equal(np.load(convert(tmp_path / "flat", tmp_path / "g.npy"))[0], grey)
    got = np.load(convert(tmp_path / "flat", tmp_path / "c.npy", colour=True))
    assert got.shape == (1, 45)
    np.testing.assert_array_equal(got[0], colour)
    if mode == "RGB":
        np.testing.assert_array_equal(got[0], pixels(0, depth=3).reshape(-1))


def test_hidden_files_are_skipped(tmp_path):
    folder = letters(tmp_path)
    for name in (".DS_Store", "A/._00.png", "A/.DS_Store", ".git/config"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"no image")
    assert np.load(convert(folder, tmp_path / "x.npy")).shape == (24, 15)


def test_progress_is_by_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("lazypipe.io.convert.IMAGES_AT_ONCE", 5)
    events: list = []
    convert(letters(tmp_path), tmp_path / "x.npy", progress=Progress((events.append,)))
    assert [event for event in events if isinstance(event, TaskDone)] == [TaskDone(i, 5) for i in range(1, 6)]


def test_the_job_and_its_help(tmp_path):
    config = ConvertConfig(source=str(letters(tmp_path)), target=str(tmp_path / "x.npy"), colour=True)
    assert run(config).shape == (24, 45)
    assert "x.labels.npy" in names(tmp_path)


def other(name: str, write: Callable[[Path], object]) -> Callable[[Path], str]:
    def add(folder: Path) -> str:
        (folder / name).parent.mkdir(exist_ok=True)
        write(folder / name)
        return name

    return add


def animation(path: Path) -> None:
    first, *rest = (Image.fromarray(pixels(i)) for i in range(3))
    first.save(path, save_all=True, append_images=rest)


def cut(path: Path) -> None:
    content = save(path, pixels(0, 60, 60)).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def half_there(path: Path) -> None:
    content = save(path, pixels(0)).read_bytes()
    path.write_bytes(content[:-30])


REFUSED: dict[str, tuple[Callable[[Path], str], str]] = {
    "a text": (other("A/notes.txt", lambda p: p.write_text("hi")), r"is no image by its suffix \(\.png, .*\)\. Move"),
    "a text above": (other("notes.txt", lambda p: p.write_text("hi")), "is no image by its suffix"),
    "no suffix": (other("A/README", lambda p: p.write_text("hi")), "is no image by its suffix"),
    "another size": (other("A/x.png", lambda p: save(p, pixels(0, 5, 3))), r"is 3 x 5 pixels, .+/0\d\.png is 5 x 3\."),
    "an empty file": (other("A/x.png", Path.touch), r"is no readable image \(cannot identify image file\)\. Remove it"),
    "a text named so": (other("A/x.png", lambda p: p.write_text("hi")), "is no readable image"),
    "truncated": (other("A/x.png", half_there), "is no readable image"),
    "a broken link": (other("A/x.png", lambda p: p.symlink_to("nowhere")), r"is no readable image \(.*No such file"),
    "animated": (other("A/x.gif", animation), r"holds 3 images\. Save each"),
    "16 bits": (
        other("A/x.png", lambda p: save(p, pixels(0).astype(np.uint16) * 257)),
        r"has more than 8 bits a pixel \(mode I;16\)\. Save it as 8-bit",
    ),
    "floats": (other("A/x.tif", lambda p: save(p, pixels(0).astype(np.float32))), "has more than 8 bits a pixel"),
    "transparent": (other("A/x.png", lambda p: save(p, pixels(0, depth=4))), r"has transparent pixels\. Save it over"),
    "an image beside the classes": (other("x.png", lambda p: save(p, pixels(0))), "beside the folders of classes"),
    "nested": (other("A/more", Path.mkdir), r"folder in that of a class.*, or convert \S+/A alone"),
    "no images of a class": (other("C", Path.mkdir), "has no images. Remove the folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path):
    add, said = REFUSED[case]
    folder = letters(tmp_path)
    name = add(folder)
    before = names(tmp_path)
    with pytest.raises(DataError, match=said) as caught:
        convert(folder, tmp_path / "x.npy")
    message = str(caught.value)
    assert message.startswith(f"{folder / name}: ")
    assert message.endswith(".")
    assert "\n" not in message
    assert names(tmp_path) == before


def test_a_truncated_image_of_the_right_size(tmp_path):
    cut(tmp_path / "flat" / "a.png")
    with pytest.raises(DataError, match=r"a\.png: is no readable image \(.*truncated"):
        convert(tmp_path / "flat", tmp_path / "x.npy")


def test_a_bad_first_image_is_named(tmp_path):
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"flat/a\.png: is no readable image"):
        convert(tmp_path / "flat", tmp_path / "x.npy")


def test_options_and_empty_folders(tmp_path):
    folder = letters(tmp_path)
    with pytest.raises(DataError, match=r"letters: is a folder of images\. Convert it to \.npy, and open that"):
        open_matrix(folder)
    for arguments, said in (
        ({"column": "a"}, "no named columns"),
        ({"n_columns": 3}, "no svmlight text"),
        ({"panel_columns": 3}, "only .zarr is written in panels"),
    ):
        with pytest.raises(DataError, match=said):
            convert(folder, tmp_path / "x.npy", **arguments)
    for source in (np.ones((2, 2), np.float32), convert(folder, tmp_path / "x.npy"), "x.svm"):
        with pytest.raises(DataError, match="is no folder of images. Leave out colour"):
            convert(source, tmp_path / "y.arrow", colour=True)
    with pytest.raises(DataError, match=r"not written to \.parquet"):
        convert(folder, tmp_path / "x.parquet")
    with pytest.raises(MemoryPlanError, match="memory is 100"):
        convert(folder, tmp_path / "z.npy", memory=100)
    (tmp_path / "void").mkdir()
    (tmp_path / "void" / "a").mkdir()
    with pytest.raises(DataError, match="directory without data"):
        convert(tmp_path / "void", tmp_path / "z.npy")


def test_labels_are_replaced_with_the_matrix_or_not_at_all(tmp_path):
    folder = letters(tmp_path)
    (tmp_path / "x.labels.npy").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"x\.labels\.npy: exists\. Pass --overwrite \(overwrite=True\)"):
        convert(folder, tmp_path / "x.npy")
    assert names(tmp_path) == ["letters", "x.labels.npy"]
    (folder / "A" / "99.png").touch()
    with pytest.raises(DataError, match=r"99\.png"):
        convert(folder, tmp_path / "x.npy", overwrite=True)
    assert (tmp_path / "x.labels.npy").read_bytes() == b"mine"
    (folder / "A" / "99.png").unlink()
    convert(folder, tmp_path / "x.npy", overwrite=True)
    assert len(np.load(tmp_path / "x.labels.npy")) == 24


def test_every_known_suffix_is_one_that_pillow_reads():
    from lazypipe.io.images import FORMATS

    Image.init()
    known = {suffix: format for suffix, format in Image.registered_extensions().items() if format in FORMATS}
    assert set(SUFFIXES) <= set(known)
