"""Schedules stay within 0 to 1, start at 1 where nothing warms up, and never rise after that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazypipe.errors import ConfigError
from lazypipe.nets.schedules import SCHEDULES, Schedule

names = st.sampled_from(sorted(SCHEDULES))
shares = st.floats(0, 1)
warmups = st.floats(0, 1, exclude_max=True)


@given(names, warmups, shares)
def test_a_factor_is_between_0_and_1(name, warmup, progress):
    assert 0 <= Schedule(name, warmup)(progress) <= 1


@given(names, warmups, shares, shares)
def test_it_rises_while_it_warms_up_and_never_after(name, warmup, one, other):
    schedule, (early, late) = Schedule(name, warmup), sorted((one, other))
    if late < warmup:
        assert schedule(early) <= schedule(late)
    elif early >= warmup:
        assert schedule(early) >= schedule(late)


@given(names, warmups)
def test_it_is_1_where_the_warmup_ends(name, warmup):
    assert Schedule(name, warmup)(warmup) == 1
    assert Schedule(name, warmup)(0) == (1 if warmup == 0 else 0)


@given(names, warmups, st.floats(allow_nan=False))
def test_beyond_the_ends_it_is_as_at_the_ends(name, warmup, progress):
    schedule = Schedule(name, warmup)
    assert schedule(progress) == schedule(min(max(progress, 0), 1))


@pytest.mark.parametrize(
    ("name", "at_half", "at_three_quarters", "at_end"),
    [
        ("constant", 1, 1, 1),
        ("linear", 1, 0.5, 0),
        ("cosine", 0.5, 0.1464466, 0),
        ("step", 0.1, 0.01, 0.01),
        ("inverse", 1 / 5.5, 1 / 7.75, 0.1),
    ],
)
def test_each_goes_down_its_own_way(name, at_half, at_three_quarters, at_end):
    schedule = Schedule(name)
    assert [schedule(0.5), schedule(0.75), schedule(1)] == pytest.approx([at_half, at_three_quarters, at_end])
    assert Schedule(name, 0.25)(0.625) == pytest.approx(at_half)  # half of what remains after the warmup


def test_what_is_no_schedule_is_refused():
    with pytest.raises(ConfigError, match=r"schedule: 'cosin' is not one of constant, .*; the nearest is 'cosine'\."):
        Schedule("cosin")
    for warmup in (-0.1, 1, 1.5, float("nan"), "0.1"):
        with pytest.raises(ConfigError, match="warmup: .* is not a number of 0 or more and below 1"):
            Schedule("constant", warmup)
