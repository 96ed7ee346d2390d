"""Sizes in bytes, read and written as people do."""

from lazypipe.checks import REAL
from lazypipe.errors import ConfigError

KIB, MIB, GIB = 2**10, 2**20, 2**30
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": KIB, "MIB": MIB, "GIB": GIB, "TIB": 2**40}


def parse_bytes(size: str | float) -> int:
    """``"512MiB"``, ``"2GiB"``, ``"1.5e9"`` or a number, of Python or of NumPy, as bytes: 0 or more."""
    try:
        nbytes = _of_text(size) if isinstance(size, str) else _of_number(size)
    except (KeyError, TypeError, ValueError, OverflowError):
        nbytes = -1
    if nbytes < 0:
        raise ConfigError(f"memory: {size!r} is no size. Write it as 512MiB, 2GiB or 4GB.")
    return nbytes


def _of_text(text: str) -> int:
    number = text.strip().rstrip("BKMGTIbkmgti ")
    return int(float(number) * UNITS[text.strip()[len(number) :].strip().upper()])


def _of_number(number: object) -> int:
    if not isinstance(number, REAL) or isinstance(number, bool):
        raise TypeError
    return int(number)


def show_bytes(n: float) -> str:
    """``536870912`` as ``512MiB``."""
    for unit, size in (("TiB", 2**40), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if n >= size:
            value = n / size
            return f"{value:.0f}{unit}" if value >= 100 or value == int(value) else f"{value:.1f}{unit}"
    return f"{int(n)}B"
