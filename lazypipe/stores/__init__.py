"""Object stores (s3://, gs://, az://, http:// and what else fsspec knows): places, ranges of bytes, uploads.

The only folder that imports fsspec, and only once an address asks for it. Sources are read in ranges and never
copied whole; outputs are written to this machine's temporary folder, and uploaded when they are whole.
"""

from lazypipe.stores.errors import StoreError
from lazypipe.stores.place import AnyPath, Place, SomePath, as_given, is_remote, on_disk, path_of
from lazypipe.stores.ranges import RANGES_NBYTES, RemoteFile
from lazypipe.stores.uploads import stands, upload

__all__ = [
    "RANGES_NBYTES", "AnyPath", "Place", "RemoteFile", "SomePath", "StoreError", "as_given", "is_remote", "on_disk",
    "path_of", "stands", "upload",
]  # fmt: skip
