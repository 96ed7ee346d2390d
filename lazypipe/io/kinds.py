"""What our Zarr stores have in common: attributes that say which kind of store one is."""

from __future__ import annotations

import json
from typing import Any

from lazypipe.errors import DataError
from lazypipe.io.sources import one_line
from lazypipe.stores import AnyPath


def attributes_of_kind(path: AnyPath, kind: str, refused: str) -> dict[str, Any]:
    """Those of a store of ``kind``. Raises DataError, which says what is ``refused``, where there is none."""
    try:
        attributes: dict[str, Any] = json.loads((path / "zarr.json").read_text())["attributes"]
        if attributes["kind"] != kind:
            raise KeyError("kind")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: {refused} ({one_line(error)}). Check the path.") from error
    return attributes
