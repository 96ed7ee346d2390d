"""A job's result on disk: a folder of ``result.json``, one ``.npy`` an array and the pictures, whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from lazypipe.atomic import replacing
from lazypipe.errors import DataError

RECORD = "result.json"


def result_folder(out: str | Path | None, job: str, overwrite: bool) -> Path:
    """Where the result goes: ``out``, or ``results/JOB-<UTC time>``.

    Raises DataError if it is taken, or if ``overwrite`` would replace something that is no result.
    """
    if out is None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return Path("results") / f"{job}-{now.removesuffix('+00:00').replace(':', '').replace('-', '')}Z"
    out = Path(out).expanduser()
    if out.exists() or out.is_symlink():
        if not overwrite:
            raise DataError(f"{out}: exists. Pass --overwrite to replace it, or another --out.")
        if not (out / RECORD).is_file() and not (out.is_dir() and not any(out.iterdir())):
            raise DataError(
                f"{out}: is no result of a job (it holds no {RECORD}), so it is not replaced. Pass another --out."
            )
    return out


def require_free(path: str | Path, overwrite: bool) -> None:
    """Raise DataError where an output beside the result folder is there already and not to be replaced."""
    path = Path(path).expanduser()
    if not overwrite and (path.exists() or path.is_symlink()):
        raise DataError(f"{path}: exists. Pass --overwrite to replace it, or another name.")


def save_result(
    out: Path,
    overwrite: bool,
    record: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    pictures: Mapping[str, Any],
) -> None:
    """Write ``record`` as JSON, each array and each matplotlib figure beside it, and move all into place at once."""
    with replacing(out, overwrite, sum(array.nbytes for array in arrays.values())) as folder:
        folder.mkdir(exist_ok=True)
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        for name, picture in pictures.items():
            picture.savefig(folder / name)
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
