"""What each pass gave, saved as it comes: a fit that is started again is given it in place of the pass.

The solvers are deterministic, so a fit that is given the products of its first passes goes on as if it had
never stopped, to the same bits. Every pass is kept: n x p numbers of float64 each on the side that is
iterated. What a pass was made of is known by its hash, so one that does not follow from this fit (another
``tol`` takes deflation elsewhere) is done anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lazypipe.checkpoint import REMEDY, SUFFIX, StateFolder, require_same
from lazypipe.engines.checkpointed import packed, unpacked
from lazypipe.errors import DataError
from lazypipe.io.matrix import Matrix
from lazypipe.stats.digests import digest

FITTED = "fitted"
DATA = ("n_rows", "fingerprint")  # what an identity says of the data that may grow


class Journal:
    """The passes of one fit, in ``folder``; without a folder nothing is kept.

    ``identity`` tells this fit from others (JSON values). ``previous`` (k, n_columns) are the components
    that an earlier fit of fewer rows left, None where there was none. Raises DataError for a state of
    something else, or of data that changed.
    """

    def __init__(self, folder: StateFolder | None, identity: dict[str, Any], matrix: Matrix):
        self.folder = folder
        self.identity = identity
        self.previous: np.ndarray | None = None
        self.n_recalled = 0
        if folder is not None:
            self._open(folder, matrix)

    def _open(self, folder: StateFolder, matrix: Matrix) -> None:
        for name in folder.names():
            saved = folder.load(name)
            assert saved is not None
            path = folder.path / f"{name}{SUFFIX}"
            identity = saved.header.get("identity")
            if identity is None:
                raise DataError(f"{path}: is no state of a PCA. {REMEDY}")
            if "statistic" in identity:  # a fold, which knows by itself what is in it
                if identity.get("n_rows", self.identity["n_rows"]) < self.identity["n_rows"]:
                    folder.forget(name)  # one over columns: no part of it stays true of longer ones
                continue
            lasting = {key: value for key, value in self.identity.items() if key not in DATA}
            was, now = identity.get("n_rows"), self.identity["n_rows"]
            if not isinstance(was, int):
                raise DataError(f"{path}: is no state of a PCA. {REMEDY}")
            identity_seen = identity
            if was < now:  # may start a fit that differs in all but the columns, or is forgotten
                lasting = {key: lasting[key] for key in ("source", "n_columns", "center", "scale")}
                identity_seen = {key: identity.get(key) for key in [*lasting, *DATA]}
            require_same(path, {k: v for k, v in identity_seen.items() if k not in DATA}, lasting)
            if was > now:
                raise DataError(f"{matrix.uri}: has {now:,} rows, the state {path} is of {was:,}: it shrank. {REMEDY}")
            if was == now and identity_seen["fingerprint"] != self.identity["fingerprint"]:
                raise DataError(
                    f"{matrix.uri}: changed since {path} was saved, with as many rows. "
                    f"Pass --restart (restart=True) to start over."
                )
            if was < now and name != FITTED:
                folder.forget(name)
            if name == FITTED:
                # Ended with these data, it is to begin where it began then: the passes are of that start.
                began = saved.arrays.get("previous") if identity == self.identity else None
                self.previous = saved.arrays["components"] if was < now else began

    def recall(self, name: str, kind: type, compute: Callable[[], Any], of: np.ndarray | None = None) -> Any:
        """What was saved under ``name`` as made from the array ``of``, else what ``compute`` gives, which is saved."""
        if self.folder is None:
            return compute()
        made_of = None if of is None else list(digest(of))
        saved = self.folder.load(name)
        if saved is not None and saved.header.get("of") == made_of:
            self.n_recalled += 1
            return unpacked("value", saved.arrays, kind)
        value = compute()
        self.folder.save(name, {"identity": self.identity, "of": made_of}, packed("value", value))
        return value

    def close(self, components: np.ndarray) -> None:
        """Keep the components, for the day the data have grown, and those that this fit began with."""
        if self.folder is not None:
            began = {} if self.previous is None else {"previous": self.previous}
            self.folder.save(FITTED, {"identity": self.identity}, {"components": components, **began})
