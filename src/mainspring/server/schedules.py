"""Schedules at work: what is due is taken once over all replicas, and run in a process of its own.

Besides declared schedules, ``every=`` of a source or a feature view is one: the view is brought up to date, or all
views of the source are.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Literal, cast

import msgspec
import orjson

from mainspring.catalog.ids import new_id, now_us
from mainspring.choose.services import Services
from mainspring.declare.data import FeatureView, Source
from mainspring.declare.declaration import kind_of, name_of, spec_of
from mainspring.declare.documents import Documents
from mainspring.declare.model import Schedule
from mainspring.engine.schedule import due_times, every_times, take_due
from mainspring.plan.graph import Plan
from mainspring.server.errands import ended, started

__all__ = ["Schedules", "Timetable", "cron_of", "timetables"]

_LOG = "schedules.log"


class Timetable(msgspec.Struct, frozen=True):
    """Something that is run at given times.

    Attributes:
        name: by which due times are taken: the schedule's name, or the URL of what has ``every=``.
        target: what is run, as ``KIND/NAME``.
        times: its due times after one moment and up to another, in UTC microseconds.
        missed: after a pause ``latest`` takes the last due time only, ``all`` each of them.
        arguments: of the pipeline, as ``key=JSON``.
        cron: the five fields that say the times; empty when none can.
        zone: the time zone of these.
    """

    name: str
    target: str
    times: Callable[[int, int], list[int]]
    missed: Literal["latest", "all"] = "latest"
    arguments: tuple[str, ...] = ()
    cron: str = ""
    zone: str = "UTC"


def timetables(plan: Plan) -> Iterator[Timetable]:
    """The timetables of an app: its schedules, and what has ``every=``."""
    for node in plan.of_kind("schedule"):
        spec = spec_of(cast(Schedule, node.declaration))
        target = f"{kind_of(spec.target).value}/{name_of(spec.target)}"
        arguments = tuple(f"{key}={orjson.dumps(value).decode()}" for key, value in spec.arguments.items())
        times = functools.partial(due_times, spec.cron, spec.zone)
        yield Timetable(node.name, target, times, spec.missed, arguments, spec.cron, spec.zone)
    own = {node.url: node for node in plan.of_kind("feature_view") if _every(node.declaration) is not None}
    for node in own.values():
        yield _regular(node.url, node.url, _every(node.declaration))
    for node in plan.of_kind("source"):
        every = _every(node.declaration)
        if every is not None:
            views = [view.url for view in plan.of_kind("feature_view") if node.url in view.inputs]
            for target in [url for url in views if url not in own] or ([] if views else [node.url]):
                yield _regular(" ".join(dict.fromkeys((node.url, target))), target, every)

    for node in plan.of_kind("documents"):
        every = _every(node.declaration)
        for index in plan.of_kind("index") if every is not None else ():
            if node.url in index.inputs:
                yield _regular(f"{node.url} {index.url}", index.url, every)


def _every(declaration: object) -> int | None:
    if isinstance(declaration, Documents):
        return spec_of(declaration).every_us
    if isinstance(declaration, Source):
        return spec_of(declaration).every_us
    return spec_of(declaration).every_us if isinstance(declaration, FeatureView) else None


def _regular(name: str, url: str, every_us: int | None) -> Timetable:
    assert every_us is not None
    return Timetable(name, url.strip("/"), functools.partial(every_times, every_us), cron=cron_of(every_us))


def cron_of(every_us: int) -> str:
    """The cron that fires as often, when minutes, hours or days part evenly; else none."""
    minutes, rest = divmod(every_us, 60_000_000)
    if rest or not minutes:
        return ""
    if minutes < 60:
        return f"*/{minutes} * * * *" if 60 % minutes == 0 else ""
    hours, rest = divmod(minutes, 60)
    if rest:
        return ""
    if hours < 24:
        return f"0 */{hours} * * *" if 24 % hours == 0 else ""
    return "0 0 * * *" if hours == 24 else ""


class _Running(msgspec.Struct):
    """A run that was started: of which timetable, when (UTC microseconds), and whether its length was told."""

    name: str
    process: subprocess.Popen[bytes]
    begun: int
    told: bool = False


class Schedules(msgspec.Struct):
    """The timetables of an app at work.

    Attributes:
        services: the project's ports.
        plan: the app's graph.
        told: told of a run that failed, and of one that keeps the next from its time.
        since: the moment from which a schedule that never fired counts.
        running: the runs that were started and are not over.
    """

    services: Services
    plan: Plan
    told: Callable[[str], None]
    since: int = msgspec.field(default_factory=now_us)
    running: list[_Running] = msgspec.field(default_factory=list)

    def fire(self) -> int:
        """Start what is due, unless it still runs since the last time; how many runs were started."""
        self._look_after()
        busy = {run.name: run for run in self.running}
        count = 0
        kept = self.services.settings.words("server.schedules")
        for table in timetables(self.plan):
            if "*" not in kept and table.name not in kept:
                continue  # a CronJob of the cluster keeps it
            if table.missed == "latest" and table.name in busy:
                self._tell_of_length(table, busy[table.name])
                continue
            due = take_due(
                self.services.catalog,
                table.name,
                table.times,
                now_us=now_us(),
                since_us=self.since,
                missed=table.missed,
                new_id=new_id,
            )
            for moment in due:
                self.running.append(_Running(table.name, self._start(table, moment.at), now_us()))
                count += 1
        return count

    def _start(self, table: Timetable, due: int) -> subprocess.Popen[bytes]:
        moment = datetime.fromtimestamp(due / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        reason = f"schedule {table.name} due {moment}"
        return started(self.services, [table.target, *table.arguments], reason, _LOG)

    def _look_after(self) -> None:
        """Let go of runs that are over, and tell of those that failed."""
        for run in self.running:
            failed = ended(run.process, f"schedule {run.name}: the run", _LOG)
            if failed is not None:
                self.told(failed)
        self.running = [run for run in self.running if run.process.returncode is None]

    def _tell_of_length(self, table: Timetable, run: _Running) -> None:
        """Tell once of a run that is still under way when the next is due, which waits for its end."""
        if not run.told and table.times(run.begun, now_us()):
            run.told = True
            self.told(
                f"schedule {table.name} is due, and waits for the run that began before (process {run.process.pid})"
            )
