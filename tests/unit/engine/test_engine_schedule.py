"""Due times against a clock that is walked minute by minute, over both changes of the clock."""

import functools
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.engine.schedule import due_times, every_times, next_due, take_due

ZONE = "Europe/Berlin"
SPRING = datetime(2026, 3, 28, 12, tzinfo=UTC)  # the clock goes from 2 to 3 on the 29th
AUTUMN = datetime(2026, 10, 24, 12, tzinfo=UTC)  # the clock goes from 3 to 2 on the 25th


def us(moment):
    return int(moment.timestamp()) * 1_000_000


def local(due, zone=ZONE):
    return datetime.fromtimestamp(due / 1e6, ZoneInfo(zone)).isoformat()


def walked(hour, minute, start, hours, zone=ZONE):
    """Every minute whose wall clock shows the time, once a day; a time that is left out is due at the change."""
    found, days = [], set()
    moment = start
    for _ in range(hours * 60):
        moment += timedelta(minutes=1)
        here = moment.astimezone(ZoneInfo(zone))
        before = (moment - timedelta(minutes=1)).astimezone(ZoneInfo(zone))
        shows = (here.hour, here.minute) == (hour, minute)
        skipped = before.date() == here.date() and (before.hour, before.minute) < (hour, minute) < (
            here.hour,
            here.minute,
        )
        if (shows or skipped) and here.date() not in days:
            days.add(here.date())
            found.append(us(moment))
    return found


@given(
    st.integers(0, 23),
    st.integers(0, 59),
    st.sampled_from([SPRING, AUTUMN]),
    st.sampled_from([ZONE, "UTC", "America/New_York"]),
)
@settings(max_examples=40, deadline=None)
def test_a_daily_time_is_due_once_a_day_over_changes_of_the_clock(hour, minute, start, zone):
    due = due_times(f"{minute} {hour} * * *", zone, us(start), us(start + timedelta(hours=48)))
    assert due == walked(hour, minute, start, 48, zone)


def test_a_time_that_is_left_out_is_due_at_the_change():
    due = due_times("30 2 * * *", ZONE, us(SPRING), us(SPRING + timedelta(hours=24)))
    assert [local(one) for one in due] == ["2026-03-29T03:00:00+02:00"]


def test_a_time_that_comes_twice_is_due_once():
    due = due_times("30 2 * * *", ZONE, us(AUTUMN), us(AUTUMN + timedelta(hours=24)))
    assert [local(one) for one in due] == ["2026-10-25T02:30:00+02:00"]


def test_every_hour_follows_the_real_hours():
    for start in (SPRING, AUTUMN):
        due = due_times("0 * * * *", ZONE, us(start), us(start + timedelta(hours=24)))
        assert [(b - a) // 3_600_000_000 for a, b in pairwise(due)] == [1] * 23


def test_the_next_due_time_is_later_than_the_moment():
    moment = datetime(2026, 5, 1, 3, 0, tzinfo=UTC)
    assert next_due("0 3 * * *", "UTC", us(moment)) == us(moment + timedelta(days=1))
    assert next_due("0 3 * * *", "UTC", us(moment) - 1) == us(moment)


@given(st.integers(1, 50), st.integers(0, 400), st.integers(0, 400))
def test_regular_times_are_the_multiples_between_two_moments(every, after, length):
    assert every_times(every, after, after + length) == [
        t for t in range(after + 1, after + length + 1) if not t % every
    ]


def test_a_long_pause_of_a_short_interval_is_cut_to_its_end():
    found = every_times(1_000_000, 0, 86_400_000_000)
    assert len(found) == 10_000
    assert found[-1] == 86_400_000_000


def take(services, now, missed, since=datetime(2026, 5, 1, tzinfo=UTC)):
    ids = iter(f"run{number}" for number in range(100))
    return take_due(
        services.catalog,
        "nightly",
        functools.partial(due_times, "0 3 * * *", "UTC"),
        now_us=us(now),
        since_us=us(since),
        missed=missed,
        new_id=lambda: next(ids),
    )


def test_a_due_time_is_taken_by_one_replica(services):
    now = datetime(2026, 5, 1, 3, 1, tzinfo=UTC)
    (mine,) = take(services, now, "latest")
    assert (local(mine.at, "UTC"), mine.run_id) == ("2026-05-01T03:00:00+00:00", "run0")
    assert take(services, now, "latest") == []
    assert take(services, now + timedelta(hours=1), "all") == []


@pytest.mark.parametrize(("missed", "days"), [("latest", [4]), ("all", [2, 3, 4])])
def test_after_a_pause_the_latest_or_all_are_taken(services, missed, days):
    take(services, datetime(2026, 5, 1, 4, tzinfo=UTC), missed)
    taken = take(services, datetime(2026, 5, 4, 4, tzinfo=UTC), missed)
    assert [datetime.fromtimestamp(due.at / 1e6, UTC).day for due in taken] == days
    assert take(services, datetime(2026, 5, 4, 5, tzinfo=UTC), missed) == []
