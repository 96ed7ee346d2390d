"""A folder of images as a matrix, an image a row: one subfolder a class, or no subfolders and no classes.

``convert`` alone reads it, once: decoding takes 50 µs for 28 x 28 pixels, a thousand times what reading a row takes.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.matrix import Dense, Piece, Unmapped
from lazypipe.io.sources import checked_rectangle, fingerprint_files, one_line
from lazypipe.stores import AnyPath, Place, SomePath, StoreError, path_of

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm", ".pnm")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # Pillow's others are left out: some start programs
DEEP = ("I", "F")  # how Pillow's modes of more than 8 bits begin; it would cut them off at 255
DECODING_NBYTES = 16  # a pixel: Pillow's image, as decoded, as converted, and to see whether it is transparent


@dataclass(frozen=True)
class ImageFolder(Dense):
    """Images of one size as rows (n_images, height * width), or times 3 in colour; ``names`` in row order."""

    uri: str
    names: tuple[str, ...]  # below the folder
    height: int
    width: int
    colour: bool
    reads_columns: bool = False

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return len(self.names), self.height * self.width * (3 if self.colour else 1)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8)

    def open(self, mapped: bool = False) -> AbstractContextManager[ImageReader]:
        """A reader, whatever ``mapped``."""
        return nullcontext(ImageReader(self))

    def reader_nbytes(self, n_rows: int, n_columns: int) -> int:
        """One image as it is decoded."""
        return self.height * self.width * DECODING_NBYTES

    def pieces(self) -> tuple[Piece, ...]:
        """A piece an image."""
        return tuple(Piece(str(path_of(self.uri) / name), Span(i, i + 1)) for i, name in enumerate(self.names))

    def fingerprint(self) -> str:
        """Hash of shape, dtype, and path, size and modification time of each image."""
        return fingerprint_files((path_of(self.uri) / name for name in self.names), self.shape, self.dtype)


@dataclass(frozen=True)
class ImageReader(Unmapped):
    """Reads rectangles of an ImageFolder."""

    source: ImageFolder

    def read(self, rows: Span, columns: Span, out: np.ndarray) -> None:
        """Fill ``out`` (len(rows), len(columns)), cast to ``out.dtype``.

        Raises DataError that names the image, for one that is damaged, of another size, or no single opaque 8-bit one.
        """
        source = self.source
        checked_rectangle(rows, columns, source.shape, out, source.uri)
        size = (source.width, source.height)
        for row, name in zip(out, source.names[rows.slice], strict=True):
            path = path_of(source.uri) / name
            with _opened(path) as image:
                if image.size != size:
                    raise DataError(
                        f"{path}: is {image.width} x {image.height} pixels, {source.names[0]} is "
                        f"{size[0]} x {size[1]}. Bring all images to one size."
                    )
                np.copyto(row, _pixels(image, path, source.colour)[columns.slice], casting="unsafe")


def is_image_folder(path: AnyPath) -> bool:
    """Whether a folder, or one of its subfolders, has a file with the suffix of an image."""
    if not path.is_dir():
        return False
    files, folders = _entries(path)
    return any(map(_is_image, files)) or any(any(map(_is_image, _entries(path / name)[0])) for name in folders)


def open_images(
    path: AnyPath, column: str | None = None, colour: bool = False
) -> tuple[ImageFolder, np.ndarray | None]:
    """The images of a folder and their labels (n_images,), the names of their subfolders; None without subfolders.

    Without classes rows come in the order of the names. With classes in that of a hash of ``class/name``: as good as
    shuffled, but the same for everyone, so that the first rows, or any others, are a fair sample of all classes.
    Files whose names begin with a full stop are skipped. Takes about 200 bytes of memory an image.

    Raises DataError for a file that is no image, images beside subfolders, subfolders of subfolders, and empty ones.
    """
    uri = str(path)
    if column is not None:
        raise DataError(f"{uri}: a folder of images has no named columns. Leave out column={column!r}.")
    files, classes = _entries(path)
    _require_images(path, files)
    if classes and files:
        raise DataError(f"{path / files[0]}: lies beside the folders of classes. Move it into one of them, or away.")
    names = sorted((f"{name}/{image}" for name in classes for image in _images_of(path / name)), key=_scattered)
    names = names if classes else files
    if not names:
        raise DataError(f"{uri}: is empty: no images. Check the path.")
    with _opened(path / names[0]) as first:
        matrix = ImageFolder(uri, tuple(names), first.height, first.width, colour)
    return matrix, np.array([name.partition("/")[0] for name in names]) if classes else None


def labels_path(target: SomePath) -> SomePath:
    """Where ``convert`` writes the labels of the images in ``target``."""
    return target.with_name(f"{target.stem}.labels.npy")


def _scattered(name: str) -> tuple[bytes, str]:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), name


def _entries(folder: AnyPath) -> tuple[list[str], list[str]]:
    """The names of the files, and of the folders, in a folder, sorted; hidden ones are left out."""
    try:
        with nullcontext(folder.iterdir()) if isinstance(folder, Place) else os.scandir(folder) as found:
            entries = sorted((entry.name, entry.is_dir()) for entry in found if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({one_line(error)}). Check its rights.") from error
    return [name for name, is_dir in entries if not is_dir], [name for name, is_dir in entries if is_dir]


def _images_of(folder: AnyPath) -> list[str]:
    """The names of the images of a class."""
    files, folders = _entries(folder)
    _require_images(folder, files)
    if folders:
        raise DataError(
            f"{folder / folders[0]}: is a folder in that of a class. Put the images of each class right into its "
            f"folder, or convert {folder} alone."
        )
    if not files:
        raise DataError(f"{folder}: has no images. Remove the folder, or put the images of this class into it.")
    return files


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _require_images(folder: AnyPath, files: list[str]) -> None:
    other = next((name for name in files if not _is_image(name)), None)
    if other is not None:
        raise DataError(f"{folder / other}: is no image by its suffix ({', '.join(SUFFIXES)}). Move it elsewhere.")


def _opened(path: AnyPath) -> Image:
    """The image, its pixels not read yet."""
    import PIL.Image

    try:
        return PIL.Image.open(path.open("rb") if isinstance(path, Place) else path, formats=FORMATS)
    except (MemoryError, StoreError):
        raise
    except Exception as error:  # Pillow's formats raise what they like at damaged files
        raise _unreadable(path, error) from error


def _pixels(image: Image, path: AnyPath, colour: bool) -> np.ndarray:
    """(n_columns,) uint8."""
    mode = "RGB" if colour else "L"
    try:
        n_frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a JPEG with previews
        image.load()
        transparent = image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255
        values = np.asarray(image if image.mode == mode else image.convert(mode)).reshape(-1)
    except (MemoryError, StoreError):
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    if n_frames != 1:
        raise DataError(f"{path}: holds {n_frames:,} images. Save each in a file of its own.")
    if image.mode.startswith(DEEP):
        raise DataError(f"{path}: has more than 8 bits a pixel (mode {image.mode}). Save it as 8-bit grey or colour.")
    if transparent:
        raise DataError(f"{path}: has transparent pixels. Save it over a background, which only you know.")
    return values


def _unreadable(path: AnyPath, error: Exception) -> DataError:
    said = one_line(error).replace(f" {str(path)!r}", "")
    return DataError(f"{path}: is no readable image ({said}). Remove it, or replace it by a good copy.")
