"""The life of an alarm: one a cause, whoever acknowledges or mutes it; races have one winner, each step an event."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.adapters.sqlite.catalog import SqliteCatalog
from mainspring.catalog.ids import new_id
from mainspring.errors import UsageError
from mainspring.monitoring.alerts import Alerts, fingerprint
from mainspring.ports.catalog import Alert, Catalog


class Clock:
    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now


def opened(folder: Path) -> Catalog:
    return SqliteCatalog(folder / "catalog.db")


def alarm(cause: str = "wind", segment: str = "", monitor: str = "late") -> Alert:
    mark = fingerprint("flights", monitor, segment, cause)
    return Alert(new_id(), mark, monitor, segment, "shape", "firing", 5, 1_000, 9.5, 4.0, 0.25, (cause,))


def told(catalog: Catalog) -> list[str]:
    return [event.what for event in catalog.events(what="alert.", limit=10_000)]


def test_the_fingerprint_names_app_monitor_segment_and_cause() -> None:
    assert fingerprint("a", "m", "", "x") == fingerprint("a", "m", "", "x")
    marks = {fingerprint(*parts) for parts in (("a", "m", "", "x"), ("a", "m", "x", ""), ("am", "", "", "x"), *SOME)}
    assert len(marks) == 3 + len(SOME)
    assert all(len(mark) == 16 and set(mark) <= set("0123456789abcdef") for mark in marks)


SOME = (("b", "m", "", "x"), ("a", "n", "", "x"), ("a", "m", "s", "x"), ("a", "m", "", "y"))


def test_an_acknowledged_alarm_is_one_alarm_until_its_cause_ends(tmp_path: Path) -> None:
    catalog, clock = opened(tmp_path), Clock()
    alerts = Alerts(catalog, "late", clock)
    first, new = alerts.offer(alarm())
    assert new
    held = alerts.acknowledge(first.id, "ada")
    assert (held.state, held.acked_by) == ("acknowledged", "ada")
    assert alerts.acknowledge(first.id, "bob") == held
    assert alerts.offer(alarm()) == (held, False)
    alerts.settle("", {"wind"})
    assert alerts.open() == [held]
    alerts.settle("origin=JFK", set())
    assert alerts.open() == [held]
    alerts.settle("", {"visibility"})
    assert alerts.open() == []
    second, new = alerts.offer(alarm())
    assert new
    assert second.id != first.id
    assert told(catalog) == ["alert.firing", "alert.acknowledged", "alert.resolved", "alert.firing"]
    by = [event.actor for event in catalog.events(what="alert.acknowledged")]
    assert by == ["ada"]


def test_a_muted_alarm_is_quiet_until_then_though_its_cause_comes_and_goes(tmp_path: Path) -> None:
    catalog, clock = opened(tmp_path), Clock()
    alerts = Alerts(catalog, "late", clock)
    first, _ = alerts.offer(alarm())
    muted = alerts.mute(first.id, 2_000, "ada")
    assert (muted.state, muted.muted_until) == ("muted", 2_000)
    for _ in range(3):
        alerts.settle("", set())
        assert alerts.offer(alarm()) == (muted, False)
    clock.now = 2_000
    again, new = alerts.offer(alarm())
    assert not new
    assert (again.id, again.state, again.muted_until) == (first.id, "firing", None)
    alerts.mute(first.id, 3_000, "ada")
    clock.now = 3_000
    alerts.settle("", set())
    assert alerts.open() == []
    assert told(catalog) == ["alert.firing", "alert.muted", "alert.firing", "alert.muted", "alert.resolved"]


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    clock = Clock()
    alerts = Alerts(opened(tmp_path), "late", clock)
    first, _ = alerts.offer(alarm())
    with pytest.raises(UsageError) as caught:
        alerts.mute(first.id, clock.now, "ada")
    assert caught.value.code == "MS-2614"
    with pytest.raises(UsageError) as caught:
        alerts.acknowledge("nothing", "ada")
    assert caught.value.code == "MS-2613"
    with pytest.raises(UsageError):
        Alerts(opened(tmp_path), "other", clock).acknowledge(first.id, "ada")
    alerts.settle("", set())
    with pytest.raises(UsageError):
        alerts.mute(first.id, 9_000, "ada")


def test_many_hands_at_once_lose_nothing(tmp_path: Path) -> None:
    """Whoever wins, the events tell a chain of states that ends in the one that is stored."""
    catalog, clock = opened(tmp_path), Clock()
    alerts = Alerts(catalog, "late", clock)
    first, _ = alerts.offer(alarm())
    start = threading.Barrier(8)
    refused: list[UsageError] = []

    def act(number: int) -> None:
        mine = Alerts(opened(tmp_path), "late", clock)
        start.wait()
        try:
            if number % 2:
                mine.acknowledge(first.id, f"n{number}")
            else:
                mine.mute(first.id, 5_000 + number, f"n{number}")
        except UsageError as error:
            refused.append(error)

    threads = [threading.Thread(target=act, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not refused
    (found,) = alerts.open()
    moves = told(catalog)
    assert moves.count("alert.muted") == 4
    assert 1 <= moves.count("alert.acknowledged") <= 4
    assert found.state in ("acknowledged", "muted")
    assert (found.muted_until is None) is (found.state == "acknowledged")


class Oracle:
    """One cause, written down as slowly as possible."""

    def __init__(self) -> None:
        self.state, self.until, self.raised = "ok", 0, 0

    def act(self, act: str, now: int) -> None:
        quiet = self.state == "muted" and self.until > now
        if act == "alarm":
            if self.state == "ok" or (self.state == "muted" and not quiet):
                self.raised += 1
                self.state = "firing"
        elif act == "fine":
            self.state = self.state if quiet else "ok"
        elif self.state != "ok":
            self.state, self.until = ("acknowledged", 0) if act == "acknowledge" else ("muted", now + 30)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["alarm", "fine", "acknowledge", "mute"]), st.integers(1, 20)), max_size=25))
def test_any_course_of_things_is_that_of_the_oracle(
    tmp_path_factory: pytest.TempPathFactory, course: list[tuple[str, int]]
) -> None:
    catalog, clock, oracle = opened(tmp_path_factory.mktemp("catalog")), Clock(), Oracle()
    alerts = Alerts(catalog, "late", clock)
    for act, pause in course:
        clock.now += pause
        oracle.act(act, clock.now)
        known = alerts.open()
        if act == "alarm":
            alerts.offer(alarm())
            alerts.settle("", {"wind"})
        elif act == "fine":
            alerts.settle("", set())
        elif known and act == "acknowledge":
            alerts.acknowledge(known[0].id, "ada")
        elif known:
            alerts.mute(known[0].id, clock.now + 30, "ada")
        assert [alert.state for alert in alerts.open()] == ([] if oracle.state == "ok" else [oracle.state])
    assert told(catalog).count("alert.firing") == oracle.raised
    catalog.close()
