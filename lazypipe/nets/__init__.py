"""Networks. The only package that imports torch: where that is missing, its import says what to install."""

from importlib.util import find_spec

from lazypipe.errors import ConfigError

_MISSING = [name for name in ("torch", "safetensors") if find_spec(name) is None]
if _MISSING:
    raise ConfigError(f"networks need {' and '.join(_MISSING)}, not installed here. Run pip install 'lazypipe[nets]'.")
