"""Clocks of servers against this machine's: where they differ, runs start at the wrong time and look lost."""

from __future__ import annotations

from flows.stack.web import Answer, ask, date_of

ALLOWED_SECONDS = 5.0


def ahead(earliest: float, latest: float, sent: float, received: float) -> float:
    """The least by which a server's clock is ahead of ours (behind: negative), in seconds.

    Its time lay between ``earliest`` and ``latest`` at some moment between ``sent`` and ``received`` of our time.
    """
    if earliest > received:
        return earliest - received
    return min(latest - sent, 0.0)


def ahead_by(answer: Answer) -> float:
    """The same from an answer's date, which tells whole seconds; 0 where it has none."""
    date = date_of(answer)
    return 0.0 if date is None else ahead(date, date + 1, answer.sent, answer.received)


def ahead_at(url: str) -> float:
    """The same of the server at ``url``; OSError where it does not answer."""
    return ahead_by(ask(url))


def complaint(name: str, seconds: float) -> str:
    """One line where a clock is too far off; else nothing."""
    if abs(seconds) <= ALLOWED_SECONDS:
        return ""
    way = "ahead of" if seconds > 0 else "behind"
    return f"{name}: its clock is {abs(seconds):,.0f} s {way} this machine's. Set both by NTP."
