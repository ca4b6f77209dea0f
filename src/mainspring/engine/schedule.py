"""When schedules are due: cron in its own time zone, each due time fired once over all replicas."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

from mainspring.lazy import lazy
from mainspring.ports.catalog import Catalog

if TYPE_CHECKING:
    import cronsim
else:
    cronsim = lazy("cronsim")

__all__ = ["Due", "due_times", "every_times", "next_due", "take_due"]

_MOST = 10_000


class Due(tuple[int, str]):
    """A due time that this replica has won: UTC microseconds, and the id of the run that it is to start."""

    __slots__ = ()

    @property
    def at(self) -> int:
        """The due time in UTC microseconds."""
        return self[0]

    @property
    def run_id(self) -> str:
        """The id of the run to start."""
        return self[1]


def _moments(cron: str, zone: str, after_us: int) -> cronsim.CronSim:
    start = datetime.fromtimestamp(after_us // 1_000_000, UTC).astimezone(ZoneInfo(zone))
    return cronsim.CronSim(cron, start)


def _us(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def next_due(cron: str, zone: str, after_us: int) -> int | None:
    """The first due time after a moment, in UTC microseconds; None when there is none in fifty years.

    A time that a change of the clock leaves out is due at the moment of the change, and a time that comes twice is
    due once, as in Debian's cron; expressions that fire every hour or minute follow the real hours.

    Args:
        cron: five fields.
        zone: the IANA time zone that they are read in.
        after_us: the moment, in UTC microseconds.
    """
    return next((_us(moment) for moment in _moments(cron, zone, after_us) if _us(moment) > after_us), None)


def due_times(cron: str, zone: str, after_us: int, until_us: int) -> list[int]:
    """All due times in (after, until], in UTC microseconds; at most ten thousand, the latest ones."""
    times = (_us(moment) for moment in _moments(cron, zone, after_us))
    found = [due for due in takewhile(lambda due: due <= until_us, times) if due > after_us]
    return found[-_MOST:]


def every_times(every_us: int, after_us: int, until_us: int) -> list[int]:
    """The multiples of a length of time since 1970 in (after, until]; at most ten thousand, the latest ones."""
    first = max(after_us // every_us + 1, until_us // every_us - _MOST + 1)
    return [number * every_us for number in range(first, until_us // every_us + 1)]


def take_due(
    catalog: Catalog,
    schedule: str,
    times: Callable[[int, int], list[int]],
    *,
    now_us: int,
    since_us: int,
    missed: Literal["latest", "all"],
    new_id: Callable[[], str],
) -> list[Due]:
    """The due times of a schedule that this replica is to carry out now; every other replica gets none of them.

    Args:
        catalog: where due times are taken, by insertion.
        schedule: its name.
        times: gives its due times after one moment and up to another, as `due_times` and `every_times` do.
        now_us: the clock.
        since_us: when the schedule began to count, for one that has never fired.
        missed: after a pause ``latest`` takes the last due time only, ``all`` each of them.
        new_id: makes the id of a run.
    """
    last = catalog.last_tick(schedule)
    due = times(since_us if last is None else last, now_us)
    if missed == "latest":
        due = due[-1:]
    taken = []
    for at in due:
        run_id = new_id()
        if catalog.tick(schedule, at, run_id):
            taken.append(Due((at, run_id)))
    return taken
