"""Whether compiled loops can be kept for the next process: numba fails where it has no place for them.

It keeps them beside the sources, else in the user's cache folder; a worker in a container, or one that was sent the
library as a .zip, may be allowed to write to neither. There each process compiles anew what it uses.
"""

import numba


def _probe() -> None:
    """Stands for any function of this folder."""


def keepable() -> bool:
    """Whether numba finds a folder for the functions of this library, and may write there."""
    try:
        numba.njit(cache=True)(_probe)._cache._impl.locator.ensure_cache_path()
    except (RuntimeError, OSError):
        return False
    return True


KEPT = keepable()
