"""Sizes in bytes, read and written as people do."""

from lazypipe.errors import ConfigError

KIB, MIB, GIB = 2**10, 2**20, 2**30


def parse_bytes(text: str | int) -> int:
    """``"512MiB"``, ``"2GiB"``, ``"1.5e9"`` or an int, as bytes."""
    if isinstance(text, int):
        return text
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    units |= {"KIB": KIB, "MIB": MIB, "GIB": GIB, "TIB": 2**40}
    number = text.strip().rstrip("BKMGTIbkmgti ")
    try:
        size = int(float(number) * units[text.strip()[len(number) :].strip().upper()])
    except (KeyError, ValueError, OverflowError):
        size = -1
    if size < 0:
        raise ConfigError(f"memory: {text!r} is no size. Write it as 512MiB, 2GiB or 4GB.")
    return size


def show_bytes(n: float) -> str:
    """``536870912`` as ``512MiB``."""
    for unit, size in (("TiB", 2**40), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if n >= size:
            value = n / size
            return f"{value:.0f}{unit}" if value >= 100 or value == int(value) else f"{value:.1f}{unit}"
    return f"{int(n)}B"
