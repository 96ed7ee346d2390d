"""An object as a file: for libraries that want one (Arrow, HDF5, zip, text), read in ranges as they ask."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from typing import Any

import numpy as np

from lazypipe.stores.place import Place
from lazypipe.stores.ranges import RemoteFile

BLOCK_NBYTES = 64 * 1024  # the least that is read at once
KEPT_BLOCKS = 16


class RangedFile(io.RawIOBase):
    """Reads of less than 64 KiB take the block around them, of which the last 16 are kept; longer ones do not."""

    def __init__(self, place: Place):
        self._file = RemoteFile(place)
        self._position = 0
        self._blocks: OrderedDict[int, np.ndarray] = OrderedDict()
        self.name = place.uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def size(self) -> int:
        """Bytes of the object."""
        return self._file.nbytes

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._file.nbytes}[whence]
        if start + offset < 0:
            raise ValueError(f"seek to {start + offset}")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        """As many bytes as the object has from here on, up to the length of ``buffer``."""
        out = np.frombuffer(buffer, np.uint8)
        out = out[: max(0, self._file.nbytes - self._position)]
        if len(out) >= BLOCK_NBYTES:
            self._file.read(self._position, out)
        else:
            done = 0
            while done < len(out):
                index, within = divmod(self._position + done, BLOCK_NBYTES)
                block = self._block(index)[within : within + len(out) - done]
                out[done : done + len(block)] = block
                done += len(block)
        self._position += len(out)
        return len(out)

    def _block(self, index: int) -> np.ndarray:
        if index not in self._blocks:
            start = index * BLOCK_NBYTES
            block = np.empty(min(BLOCK_NBYTES, self._file.nbytes - start), np.uint8)
            self._file.read(start, block)
            self._blocks[index] = block
            if len(self._blocks) > KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(index)
        return self._blocks[index]
