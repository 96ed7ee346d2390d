"""Outputs to a store: uploaded when they are whole, the file that makes them readable last.

A folder of objects cannot be moved into place at once. While its objects are written a mark lies beside them, and
``result.json`` or ``zarr.json`` comes when all others are there: what has a mark, or lacks that file, is no result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lazypipe.errors import DataError
from lazypipe.stores.errors import StoreError, explained, told
from lazypipe.stores.filesystems import READ_ONLY, answer, waited
from lazypipe.stores.place import Place

MARK = "_incomplete"  # names with an underscore are passed over by readers of Parquet parts
LAST = ("result.json", "zarr.json")
AT_ONCE = 4
PART_NBYTES = 5 * 1024**2  # of a large object, the least that S3 takes; it takes 10,000 parts
MOST_PARTS = 9_000
BUCKETS = ("s3", "s3a", "gs", "gcs")
UPLOAD_SECONDS = 24 * 3600
MARK_SECONDS = 60
DELETE_SECONDS = 600
CLEANING_SECONDS = 10  # after a failure, when the store may not answer at all
REFUSED = "cannot be written"


def stands(place: Place) -> bool:
    """Whether an output is there, or anything else: all but what an upload left half-written."""
    return place.exists() and not (place / MARK).is_file()


def require_writable(place: Place) -> None:
    """DataError for a store that is only read; StoreError where there is no such bucket, or no answer."""
    if place.scheme in READ_ONLY:
        raise DataError(f"{place}: {place.scheme}:// is only read. Write to a local path, or to s3://.")
    bucket = Place(f"{place.scheme}://{place.key.parts[1]}")
    if place.scheme in BUCKETS:
        try:
            with told(place.uri, REFUSED):
                answer(place.file_system, "info", bucket.uri)
        except FileNotFoundError as error:
            raise StoreError(f"{place}: {REFUSED}: no such bucket, {bucket}. Make it, or write elsewhere.") from error
        except StoreError as error:
            if not isinstance(error.__cause__, PermissionError):  # some may write, and not look
                raise


def upload(path: Path, place: Place, leave_out: Sequence[str] = ()) -> None:
    """Write a file, or all files of a folder but ``leave_out``, to ``place``, in place of what is there.

    On any failure what was uploaded is removed, as far as the store allows it. What was replaced is gone by then.
    """
    try:
        _upload(path, place, leave_out)
    except FileNotFoundError as error:
        raise explained(place.uri, error, REFUSED) from error


def _upload(path: Path, place: Place, leave_out: Sequence[str]) -> None:
    if path.is_file():
        with told(place.uri, REFUSED):
            _put_all(place, [(path, place)])
        return
    files = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
    files = {name: file for name, file in files.items() if name not in leave_out}
    first = [(file, place / name) for name, file in files.items() if name not in LAST]
    last = [(file, place / name) for name, file in files.items() if name in LAST]
    mark = place / MARK
    with told(place.uri, REFUSED):
        before = {found.uri: found for found in place.rglob("*")} if place.exists() else {}
        answer(place.file_system, "pipe_file", mark.uri, b"", seconds=MARK_SECONDS)
        try:
            _delete([before[target.uri] for name in LAST if (target := place / name).uri in before])
            _put_all(place, first)
            written = {target.uri for _, target in (*first, *last)}
            _delete([old for uri, old in before.items() if uri not in written and uri != mark.uri])
            _put_all(place, last)
            _delete([mark])
        except BaseException:
            with suppress(Exception):
                _delete([target for _, target in (*last, *first)], CLEANING_SECONDS)
                _delete([mark], CLEANING_SECONDS)
            raise


def _put_all(place: Place, pairs: Sequence[tuple[Path, Place]]) -> None:
    file_system = place.file_system
    if not getattr(file_system, "async_impl", False):
        for path, target in pairs:
            file_system.put_file(str(path), target.uri)
        return

    def put(pair: tuple[Path, Place]) -> Any:
        path, target = pair
        return file_system._put_file(str(path), target.uri, **_parts_of(path, target))

    try:
        _each(file_system, put, pairs, UPLOAD_SECONDS)
    except BaseException:
        with suppress(Exception):
            _abort(file_system, [target for _, target in pairs])
        raise


def _parts_of(path: Path, target: Place) -> dict[str, Any]:
    """How a large file is cut; s3fs alone is told, which else would hold ten parts of 50 MB."""
    if target.scheme not in ("s3", "s3a"):
        return {}
    return {"chunksize": max(PART_NBYTES, -(-path.stat().st_size // MOST_PARTS)), "max_concurrency": 2}


def _abort(file_system: Any, targets: Sequence[Place]) -> None:
    """End uploads in parts that were begun and not completed: S3 keeps their parts, unseen, and bills them."""
    if not hasattr(file_system, "_abort_mpu"):
        return

    async def abort(target: Place) -> None:
        bucket, key, _ = file_system.split_path(target.uri)
        begun = await file_system._call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key)
        for one in begun.get("Uploads", ()):
            if one["Key"] == key:
                await file_system._abort_mpu(bucket, key, one["UploadId"])

    _each(file_system, abort, targets, CLEANING_SECONDS)


def _delete(places: Sequence[Place], seconds: float = DELETE_SECONDS) -> None:
    if not places:
        return
    file_system = places[0].file_system
    if not getattr(file_system, "async_impl", False):
        for place in places:
            with suppress(FileNotFoundError):
                file_system.rm_file(place.uri)
        return

    async def delete(place: Place) -> None:
        with suppress(FileNotFoundError):
            await file_system._rm_file(place.uri)

    _each(file_system, delete, places, seconds)


def _each(file_system: Any, work: Callable[[Any], Any], items: Sequence[Any], seconds: float) -> None:
    """``work`` of each, a few at once; the first failure ends all."""

    async def all_of_them() -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(item: Any) -> None:
            async with gate:
                await work(item)

        tasks = [asyncio.ensure_future(one(item)) for item in items]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    waited(file_system, all_of_them, seconds)
