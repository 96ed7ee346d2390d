"""Ranges of the bytes of an object: neighbours joined, long ones cut, several asked for at once.

A request takes about as long as a megabyte on its way, so ranges that lie close together become one; a store gives
a client more over several connections than over one, so long ranges are cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lazypipe.stores.errors import StoreError, changed, explained, told
from lazypipe.stores.filesystems import RANGES_SECONDS, waited
from lazypipe.stores.place import Place

PART_NBYTES = 1024**2
AT_ONCE = 32  # requests of one reader, of those in flight
IN_FLIGHT_NBYTES = 8 * PART_NBYTES
RANGES_NBYTES = 2 * IN_FLIGHT_NBYTES  # memory that reading takes: what is in flight, and as much while it is joined
WASTE = 8  # of what is wanted, an eighth may be read beside it to save requests
ATTEMPTS = 4

Wanted = tuple[int, np.ndarray]  # where its bytes begin, and the bytes (n,) uint8 to fill


class Request(NamedTuple):
    """Bytes ``start:stop``, and the parts of ``wanted`` within."""

    start: int
    stop: int
    wanted: tuple[Wanted, ...]

    def give(self, data: bytes) -> None:
        """Hand the bytes on to those who want them."""
        raw = np.frombuffer(data, np.uint8)
        for offset, out in self.wanted:
            first, last = max(self.start, offset), min(self.stop, offset + len(out))
            out[first - offset : last - offset] = raw[first - self.start : last - self.start]


def requests(wanted: Iterable[Wanted]) -> list[Request]:
    """What to ask for: at most 1 MiB each, at most an eighth more bytes than are wanted, none twice."""
    joined: list[list[Wanted]] = []
    start = stop = useful = 0
    for offset, out in sorted((one for one in wanted if len(one[1])), key=lambda one: one[0]):
        end, gap = offset + len(out), max(0, offset - stop)
        close = joined and (end - start - useful - len(out)) * WASTE <= useful + len(out)
        if close and (end - start <= PART_NBYTES or gap == 0):
            joined[-1].append((offset, out))
            useful += min(len(out), max(0, end - stop))
            stop = max(stop, end)
        else:
            joined.append([(offset, out)])
            start, stop, useful = offset, end, len(out)
    return [request for ranges in joined for request in _cut(ranges)]


def _cut(ranges: list[Wanted]) -> list[Request]:
    start, stop = ranges[0][0], max(offset + len(out) for offset, out in ranges)
    if stop - start <= PART_NBYTES:
        return [Request(start, stop, tuple(ranges))]
    found, first = [], 0
    for at in range(start, stop, PART_NBYTES):
        end = min(at + PART_NBYTES, stop)
        while ranges[first][0] + len(ranges[first][1]) <= at:
            first += 1
        last = first
        while last < len(ranges) and ranges[last][0] < end:
            last += 1
        found.append(Request(at, end, tuple(ranges[first:last])))
    return found


class RemoteFile:
    """An object open for reading at any offset. Raises StoreError once it is not the one that was opened."""

    def __init__(self, place: Place):
        self.place = place
        self._file_system = place.file_system
        with told(place.uri):
            try:
                status = place.stat()
            except FileNotFoundError as error:
                raise explained(place.uri, error) from error
        self.nbytes, self._tag = status.st_size, status.tag

    def read(self, offset: int, out: np.ndarray) -> None:
        """Fill the bytes ``out`` (n,) uint8 from ``offset`` on."""
        self.gather([(offset, out)])

    def gather(self, wanted: Sequence[Wanted]) -> None:
        """Fill each of ``wanted``; StoreError where the object has not as many bytes."""
        asked = requests(wanted)
        if not asked:
            return
        if asked[-1].stop > self.nbytes:
            raise changed(self.place.uri)
        with told(self.place.uri):
            try:
                if getattr(self._file_system, "async_impl", False):
                    waited(self._file_system, lambda: self._all(asked), RANGES_SECONDS)
                    return
                for request in asked:
                    data = self._file_system.cat_file(self.place.uri, start=request.start, end=request.stop)
                    self._hand_on(request, data)
            except FileNotFoundError as error:
                raise changed(self.place.uri) from error

    async def _all(self, asked: Sequence[Request]) -> None:
        """All requests, as many at once as may be in flight, in order."""
        waiting, in_flight, nbytes = list(reversed(asked)), set[asyncio.Task[None]](), dict[Any, int]()
        done = set[asyncio.Task[None]]()
        try:
            while waiting or in_flight:
                while waiting and len(in_flight) < AT_ONCE and sum(nbytes.values()) < IN_FLIGHT_NBYTES:
                    request = waiting.pop()
                    task = asyncio.ensure_future(self._one(request))
                    in_flight.add(task)
                    nbytes[task] = request.stop - request.start
                done, in_flight = await asyncio.wait(in_flight, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    del nbytes[task]
                    task.result()
        finally:
            for task in in_flight:
                task.cancel()
            await asyncio.gather(*in_flight, *done, return_exceptions=True)  # or asyncio tells of each on stderr

    async def _one(self, request: Request) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._hand_on(request, await self._bytes(request.start, request.stop))
                return
            except Exception as error:
                if attempt == ATTEMPTS or not _passes(error):
                    raise
                await asyncio.sleep(0.1 * 2**attempt)

    async def _bytes(self, start: int, stop: int) -> bytes:
        """Of S3 only while the object is the one that was opened."""
        file_system = self._file_system
        if self.place.scheme not in ("s3", "s3a") or not self._tag:
            data: bytes = await file_system._cat_file(self.place.uri, start=start, end=stop)
            return data
        bucket, key, _ = file_system.split_path(self.place.uri)
        try:
            found = await file_system._call_s3(
                "get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}", IfMatch=self._tag
            )
        except OSError as error:
            if "pre-condition" in str(error) or "Precondition" in str(error) or "not satisfiable" in str(error):
                raise changed(self.place.uri) from error
            raise
        async with found["Body"] as body:
            return bytes(await body.read())

    def _hand_on(self, request: Request, data: bytes) -> None:
        n_bytes = request.stop - request.start
        if n_bytes < len(data) == self.nbytes:
            raise StoreError(f"{self.place}: the server gives no ranges, only whole files. Download it.")
        if len(data) != n_bytes:
            raise changed(self.place.uri)
        request.give(data)


def _passes(error: Exception) -> bool:
    """Whether to ask again: connections that broke in the middle of an answer."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"ClientError", "ClientPayloadError", "TimeoutError", "IncompleteRead", "ConnectionError",
                         "ResponseStreamingError"}) and "ClientConnectorError" not in names  # fmt: skip
