"""What a server tells of its data: how old it is, which checks failed; and the alarms of what is too old."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import msgspec

from mainspring.catalog.ids import new_id
from mainspring.catalog.ids import now_us as present
from mainspring.choose.services import Services
from mainspring.declare.data import FeatureView, FeatureViewSpec, Source, SourceSpec
from mainspring.declare.declaration import spec_of
from mainspring.declare.quality import Check, CheckKind
from mainspring.features.logs.log import newest
from mainspring.features.quality.gate import CHECKED, PUSHED
from mainspring.features.quality.results import CheckResult
from mainspring.features.view import View
from mainspring.monitoring.alerts import Alerts, fingerprint
from mainspring.plan.graph import Plan
from mainspring.ports.catalog import Alert, Event
from mainspring.serving.telemetry import Labels, Metrics

__all__ = ["DataQuality"]

_LOOK_US = 5_000_000
"""How often the logs are looked at; ages in between are counted from what was seen."""
_TOLD_US = 60_000_000
"""Pushes whose rows fail are put on record at most this often, a source."""
_SECOND = 1e6
_MANY = 500
_RECENT = 16
_FAILED = ("refused", "set_aside", "warned")


class _Aged(msgspec.Struct):
    """A log whose age is watched.

    Attributes:
        url: whose log it is: ``feature_view/conditions``.
        log: its name.
        limit_us: how old its newest event may be, or None.
        version: the version that was looked at last.
        event_us: the newest event in it, or None.
        commit_us: when rows came last, or None.
    """

    url: str
    log: str
    limit_us: int | None
    version: int | None = None
    event_us: int | None = None
    commit_us: int | None = None


class DataQuality:
    """The quality of an app's data, as one server sees it.

    Args:
        services: the project's ports.
        plan: the app's graph.
        views: the feature views.
        logs: the log of each source by name.
        metrics: where numbers go.
        consumer: the server's name, under which it remembers how far it has counted.
        clock: the time, UTC microseconds.
    """

    def __init__(
        self,
        services: Services,
        plan: Plan,
        views: Mapping[str, View],
        logs: Mapping[str, str],
        metrics: Metrics,
        consumer: str,
        clock: Callable[[], int] = present,
    ) -> None:
        self._services = services
        self._app = plan.app
        self._metrics = metrics
        self._consumer = f"checks/{consumer}"
        self._clock = clock
        self._since = clock()
        self._looked = 0
        self._told: dict[str, int] = {}
        self._aged = [_Aged(f"feature_view/{name}", view.log, None) for name, view in views.items()]
        self._aged += [_Aged(f"source/{name}", log, None) for name, log in logs.items()]
        for aged in self._aged:
            aged.limit_us = _limit(plan, aged.url)
            if aged.limit_us is not None:
                kind, _, name = aged.url.partition("/")
                if kind == "feature_view":
                    limit = aged.limit_us / _SECOND
                    metrics.set("mainspring_feature_age_limit_seconds", limit, app=self._app, view=name)
        metrics.gauge_from("mainspring_feature_age_seconds", self._ages)

    def once(self) -> None:
        """Count what checks have found, and, every few seconds, see how old the data is and judge that."""
        self._count_told()
        now = self._clock()
        if now - self._looked < _LOOK_US:
            return
        self._looked = now
        for aged in self._aged:
            self._look(aged)
            if aged.limit_us is not None and aged.version is not None:
                self._judge(aged, aged.limit_us, now)

    # -- age ------------------------------------------------------------------------------------------------------

    def _look(self, aged: _Aged) -> None:
        tables = self._services.tables
        version = tables.version(aged.log)
        if version == aged.version:
            return
        found = newest(tables, aged.log)
        aged.event_us = None if found is None else found.max_event_us
        commits = tables.commits(aged.log, _RECENT)
        aged.commit_us = next((commit.at_us for commit in commits if commit.rows and commit.notes), aged.commit_us)
        aged.version = version

    def _ages(self) -> Mapping[Labels, float]:
        now = self._clock()
        found: dict[Labels, float] = {}
        for aged in self._aged:
            kind, _, name = aged.url.partition("/")
            for of, moment in (("event", aged.event_us), ("commit", aged.commit_us)):
                if kind == "feature_view" and moment is not None:
                    labels = (("app", self._app), ("of", of), ("view", name))
                    found[labels] = max(now - moment, 0) / _SECOND
        return found

    def _judge(self, aged: _Aged, limit_us: int, now: int) -> None:
        """Raise the alarm of a log that is too old, or end it; one without a row is as old as the server."""
        since = self._since if aged.event_us is None else aged.event_us
        age = max(now - since, 0)
        alerts = Alerts(self._services.catalog, aged.url, self._clock)
        if age > limit_us:
            seconds, limit = age / _SECOND, limit_us / _SECOND
            told = {"why": f"the newest event is {seconds:,.0f} s old, and {limit:,.0f} s are allowed"}
            alerts.offer(
                Alert(
                    new_id(),
                    fingerprint(self._app, aged.url, "", "freshness"),
                    aged.url,
                    "",
                    "freshness",
                    "firing",
                    since + limit_us,
                    now,
                    seconds,
                    limit,
                    seconds,
                    (aged.url,),
                    dict(told),
                )
            )
        alerts.settle("", {aged.url} if age > limit_us else (), feeds=True)

    # -- checks ---------------------------------------------------------------------------------------------------

    def _count_told(self) -> None:
        """Add what steps have put on record since the last time; pushes are counted when they come."""
        catalog = self._services.catalog
        after = catalog.cursor(self._consumer)
        events = catalog.events(after, what=CHECKED, limit=_MANY)
        for event in events:
            self._count(event.subject, msgspec.convert(event.data["checks"], list[CheckResult]))
        if events:
            catalog.set_cursor(self._consumer, events[-1].seq)

    def _count(self, subject: str, results: Sequence[CheckResult]) -> None:
        for result in results:
            if result.state in _FAILED:
                labels = {"of": subject.strip("/"), "check": result.check, "on_fail": result.on_fail}
                add = self._metrics.counter("mainspring_check_failures_total", app=self._app, **labels)
                add(float(result.failing))

    def pushed(self, source: str, results: Sequence[CheckResult], *, refused: bool = False) -> None:
        """Count what checks found in pushed rows, and put it on record, at most once a minute.

        Args:
            source: the source's name.
            results: what they found.
            refused: whether the rows were refused.
        """
        subject, now = f"/source/{source}", self._clock()
        failed = [result for result in results if result.state in _FAILED]
        self._count(subject, failed)
        if failed and now - self._told.get(source, 0) >= _TOLD_US:
            self._told[source] = now
            data: dict[str, object] = {"refused": refused, "checks": msgspec.to_builtins(failed)}
            self._services.catalog.add_event(Event(now, "push", PUSHED, subject, data))


def _limit(plan: Plan, url: str) -> int | None:
    """The shortest age that a source's or a view's ``fresh`` allows, in microseconds; None where it has none."""
    node = plan.node(f"/{url}")
    declared = None if node is None else node.declaration
    spec = spec_of(declared) if isinstance(declared, (Source, FeatureView)) else None
    checks: Sequence[Check] = () if spec is None else cast("SourceSpec | FeatureViewSpec", spec).checks
    ages = [check.age_us for check in checks if check.kind is CheckKind.FRESH and check.age_us is not None]
    return min(ages, default=None)
