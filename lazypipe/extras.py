"""Packages that only some of the work needs: what to install where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

from lazypipe.errors import ConfigError


def require_packages(who_needs: str, extra: str, *packages: str) -> None:
    """Raise ConfigError, that names the extra of lazypipe to install, where one of ``packages`` is not there."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{who_needs} {' and '.join(missing)}, not installed here. Run pip install 'lazypipe[{extra}]'."
        )
