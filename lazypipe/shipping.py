"""The library as one .zip, to ship to workers that have its dependencies but not itself: the same bytes every time.

``python -m lazypipe.shipping dist/lazypipe.zip``
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from lazypipe.atomic import replacing

SUFFIXES = (".py", ".pyi", ".properties")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a .zip can tell
RIGHTS = 0o644 << 16


def pack(target: str | Path) -> Path:
    """Write the sources of this lazypipe to a .zip that Python imports it from; returns its path.

    Times and rights of the files are left out, so that the same sources give the same bytes.
    """
    library = Path(__file__).parent
    path = Path(target).absolute()
    with replacing(path, overwrite=True) as partial, zipfile.ZipFile(partial, "w") as archive:
        for source in sorted(library.rglob("*")):
            if source.suffix in SUFFIXES and "__pycache__" not in source.parts:
                entry = zipfile.ZipInfo(source.relative_to(library.parent).as_posix(), EPOCH)
                entry.external_attr, entry.compress_type = RIGHTS, zipfile.ZIP_DEFLATED
                archive.writestr(entry, source.read_bytes())
    return path


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m lazypipe.shipping TARGET.zip")
    made = pack(sys.argv[1])
    sys.stdout.write(f"wrote     {made}: {made.stat().st_size:,} bytes\n")
