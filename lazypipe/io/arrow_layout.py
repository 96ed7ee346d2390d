"""Where the numbers of an Arrow IPC file lie, from its metadata alone: for files that cannot be mapped, in a store.

The footer lists the record batches, and the head of each tells its buffers: both are flatbuffers, of which this
reads the few fields that it needs. The format: https://arrow.apache.org/docs/format/Columnar.html and Message.fbs.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lazypipe.errors import DataError
from lazypipe.stores import Place, RemoteFile

TAIL = struct.Struct("<i6s")  # length of the footer, and "ARROW1"
BLOCK = np.dtype([("offset", "<i8"), ("head", "<i4"), ("", "<i4"), ("body", "<i8")])
PAIR = np.dtype([("first", "<i8"), ("second", "<i8")])  # of a node length and nulls, of a buffer offset and length
CONTINUES = 0xFFFFFFFF  # before the length of a head, since Arrow 0.15
MOST_HEADS_NBYTES = 2**30
FOOTER_BATCHES, MESSAGE_HEADER, BATCH_LENGTH, BATCH_NODES, BATCH_BUFFERS, BATCH_COMPRESSION = 3, 2, 0, 1, 2, 3


class StoredBatch(NamedTuple):
    """A record batch: its nodes (length, nulls) and buffers (offset in the file, bytes), depth first."""

    n_rows: int
    compressed: bool
    nodes: np.ndarray
    buffers: np.ndarray


class Columns(NamedTuple):
    """The first node and the first buffer of each column."""

    nodes: tuple[int, ...]
    buffers: tuple[int, ...]


def batches_of(place: Place) -> list[StoredBatch]:
    """Every record batch of a file, in order; DataError where the metadata are damaged."""
    file = RemoteFile(place)
    try:
        blocks = _blocks(file)
        heads = [np.empty(int(block["head"]), np.uint8) for block in blocks]
        if sum(head.nbytes for head in heads) > min(MOST_HEADS_NBYTES, file.nbytes):
            raise ValueError("its record batches have heads of more bytes than the file")
        file.gather([(int(block["offset"]), head) for block, head in zip(blocks, heads, strict=True)])
        return [
            _batch(head.tobytes(), int(b["offset"]) + int(b["head"])) for head, b in zip(heads, blocks, strict=True)
        ]
    except (struct.error, ValueError, IndexError) as error:
        raise DataError(f"{place}: is a damaged or truncated Arrow file ({error}). Write or copy it again.") from error


def columns_of(schema: pa.Schema) -> Columns | None:
    """Where the columns of a table begin; None for types of which that cannot be told."""
    nodes, buffers = [0], [0]
    for kind in schema.types:
        counted = _counted(kind)
        if counted is None:
            return None
        nodes.append(nodes[-1] + counted[0])
        buffers.append(buffers[-1] + counted[1])
    return Columns(tuple(nodes), tuple(buffers))


def _counted(kind: pa.DataType) -> tuple[int, int] | None:
    """Nodes and buffers of a type, those of its children among them."""
    if isinstance(kind, pa.BaseExtensionType):
        return _counted(kind.storage_type)
    if pa.types.is_null(kind):
        return 1, 0
    own = {pa.types.is_list: 2, pa.types.is_large_list: 2, pa.types.is_map: 2, pa.types.is_fixed_size_list: 1,
           pa.types.is_struct: 1}  # fmt: skip
    for is_kind, n_buffers in own.items():
        if is_kind(kind):
            children = [_counted(kind.field(i).type) for i in range(kind.num_fields)]
            if None in children:
                return None
            return 1 + sum(c[0] for c in children if c), n_buffers + sum(c[1] for c in children if c)
    text = (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string, pa.types.is_large_binary)
    if any(is_kind(kind) for is_kind in text):
        return 1, 3
    flat = pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_fixed_size_binary(kind)
    return (1, 2) if flat or pa.types.is_dictionary(kind) else None


def _blocks(file: RemoteFile) -> np.ndarray:
    tail = np.empty(min(TAIL.size, file.nbytes), np.uint8)
    file.read(file.nbytes - len(tail), tail)
    length, magic = TAIL.unpack(tail.tobytes())
    if magic != b"ARROW1" or not 0 < length <= file.nbytes - TAIL.size:
        raise ValueError("it does not end as one")
    footer = np.empty(length, np.uint8)
    file.read(file.nbytes - TAIL.size - length, footer)
    raw = footer.tobytes()
    return _vector(raw, _root(raw), FOOTER_BATCHES, BLOCK)


def _batch(raw: bytes, body: int) -> StoredBatch:
    raw = raw[8 if struct.unpack_from("<I", raw)[0] == CONTINUES else 4 :]
    at = _field(raw, _root(raw), MESSAGE_HEADER)
    head = at + struct.unpack_from("<I", raw, at)[0]
    length = _field(raw, head, BATCH_LENGTH)
    buffers = _vector(raw, head, BATCH_BUFFERS, PAIR).copy()
    buffers["first"] += body
    return StoredBatch(
        struct.unpack_from("<q", raw, length)[0] if length else 0,
        _field(raw, head, BATCH_COMPRESSION) != 0,
        _vector(raw, head, BATCH_NODES, PAIR),
        buffers,
    )


def _root(raw: bytes) -> int:
    return int(struct.unpack_from("<I", raw)[0])


def _field(raw: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table lies; 0 where it is left out."""
    fields = table - struct.unpack_from("<i", raw, table)[0]
    if 4 + 2 * number >= struct.unpack_from("<H", raw, fields)[0]:
        return 0
    offset = struct.unpack_from("<H", raw, fields + 4 + 2 * number)[0]
    return table + offset if offset else 0


def _vector(raw: bytes, table: int, number: int, kind: np.dtype) -> np.ndarray:
    at = _field(raw, table, number)
    if not at:
        return np.zeros(0, kind)
    at += struct.unpack_from("<I", raw, at)[0]
    return np.frombuffer(raw, kind, struct.unpack_from("<I", raw, at)[0], at + 4)
