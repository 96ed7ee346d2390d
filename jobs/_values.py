"""Lists, pairs and numbers as a command line has them: ``-149 1`` or ``-149,1``."""

from __future__ import annotations

from typing import Any


def words(value: Any) -> Any:
    """Text, in one word or several, cut at its commas; all else as it is."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    if isinstance(value, list | tuple):
        return [part for entry in value for part in (words(entry) if isinstance(entry, str) else [entry])]
    return value


def numbers(value: Any) -> Any:
    """Text as numbers, whole ones as int."""
    found = words(value)
    return [_number(entry) for entry in found] if isinstance(found, list) else found


def one_or_more_numbers(value: Any) -> Any:
    """Text as numbers, and as one number, not a list, where there is only one."""
    found = numbers(value)
    return found[0] if isinstance(found, list) and len(found) == 1 else found


def pair(value: Any) -> Any:
    """Two numbers."""
    found = numbers(value)
    if not isinstance(found, list) or len(found) != 2:
        raise ValueError("give two numbers, start and stop, such as -149 1")
    return tuple(found)


def ids(value: Any) -> Any:
    """Ids of a list: those of digits alone as int, others as text."""
    found = words(value)
    if not isinstance(found, list):
        return found
    return [int(entry) if isinstance(entry, str) and entry.isdecimal() else entry for entry in found]


def path_or_pairs(value: Any) -> Any:
    """``100,200``, one or several, as pairs of integers; one word that does not begin so is a path."""
    if isinstance(value, str) and not value.partition(",")[0].strip().isdecimal():
        return value
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list | tuple):
        return value
    pairs = [pair(entry) for entry in entries]
    if not all(isinstance(bound, int) for one in pairs for bound in one):
        raise ValueError("give whole samples, start,stop, such as 100,200")
    return pairs


def _number(entry: Any) -> Any:
    if not isinstance(entry, str):
        return entry
    for kind in (int, float):
        try:
            return kind(entry)
        except ValueError:
            pass
    raise ValueError(f"{entry!r} is no number")
