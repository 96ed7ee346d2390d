"""A folder of a store as the zarr library reads it: an object a chunk, or ranges of a shard; never written."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Iterable
from typing import Any, NoReturn

import numpy as np
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype

from lazypipe.stores.place import Place
from lazypipe.stores.ranges import RemoteFile


class PlaceStore(Store):  # type: ignore[misc]  # zarr is untyped here
    """What lies below ``place``, for reading."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, place: Place):
        super().__init__(read_only=True)
        self.place = place

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlaceStore) and other.place == self.place

    def __hash__(self) -> int:
        return hash(self.place)

    def __str__(self) -> str:
        return self.place.uri

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The bytes of an object; None where there is none, as of a chunk that was never written."""
        found = await asyncio.to_thread(self._bytes, key, byte_range)
        return None if found is None else prototype.buffer.from_bytes(found)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> builtins.list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    def _bytes(self, key: str, byte_range: ByteRequest | None) -> Any:
        place = self.place / key
        try:
            status = place.stat()
        except FileNotFoundError:
            return None
        if status.is_dir:
            return None
        start, stop = 0, status.st_size
        if isinstance(byte_range, RangeByteRequest):
            start, stop = byte_range.start, min(byte_range.end, stop)
        elif isinstance(byte_range, OffsetByteRequest):
            start = byte_range.offset
        elif byte_range is not None:
            start = max(0, stop - byte_range.suffix)
        out = np.empty(max(0, stop - start), np.uint8)
        RemoteFile(Place(place.uri, status)).read(start, out)
        return out.tobytes()

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread((self.place / key).is_file)

    async def list(self) -> AsyncIterator[str]:
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in await asyncio.to_thread(self._keys, prefix):
            yield key

    def _keys(self, prefix: str) -> builtins.list[str]:
        keys = (str(place.relative_to(self.place)) for place in (self.place / prefix).rglob("*"))
        return sorted(key for key in keys if key.startswith(prefix))

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        for name in await asyncio.to_thread(self._names, prefix):
            yield name

    def _names(self, prefix: str) -> builtins.list[str]:
        try:
            return [place.name for place in (self.place / prefix).iterdir()]
        except FileNotFoundError:
            return []

    async def set(self, key: str, value: Buffer) -> NoReturn:
        raise NotImplementedError("outputs are written to disk, and uploaded when they are whole")

    async def delete(self, key: str) -> NoReturn:
        raise NotImplementedError("outputs are replaced whole")
