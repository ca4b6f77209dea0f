"""The contract of the catalog: events, numbers, ticks and tags."""

from __future__ import annotations

import threading

from msgspec.structs import replace

from mainspring.ports.catalog import Event, Metric
from mainspring.testing.catalog_rows import Opening, an_event
from mainspring.testing.crew import Crew

__all__ = ["EventContract"]


class EventContract:
    """Events, numbers, ticks and tags."""

    def test_events_in_order(self, opening: Opening) -> None:
        """Each after the one before, as it was told; by what they are about, from anywhere, the newest first too."""
        catalog = opening()
        told = [
            Event(5, "é", "run.ok", "/run/1", {"x": [1, {"y": None}]}),
            Event(3, "b", "run_failed", "/run/12"),
            Event(9, "c", "Run.ok", "/RUN"),
            Event(1, "d", "alarm", "%/run"),
        ]
        seqs = [opening().add_event(event) for event in told]
        assert seqs == sorted(set(seqs))
        assert seqs[0] > 0
        found = catalog.events()
        assert [replace(event, seq=0, prev_hash="") for event in found] == told
        assert [event.seq for event in found] == seqs
        assert [event.at for event in catalog.events(seqs[0], limit=2)] == [3, 9]
        assert [event.at for event in catalog.events(what="run")] == [5, 3]
        assert [event.at for event in catalog.events(what="run_")] == [3]
        assert [event.at for event in catalog.events(subject="/run/1")] == [5]
        assert [event.at for event in catalog.events(subject="/run")] == [5, 3]
        assert catalog.events(subject="/ru") == catalog.last_events(subject="/run/") == []
        assert [event.at for event in catalog.events(subject="%")] == [1]
        assert [event.at for event in catalog.events(what="run", subject="/run/12")] == [3]
        assert catalog.events(seqs[-1]) == []
        assert catalog.last_events() == found[::-1]
        assert [event.at for event in catalog.last_events(what="run", limit=1)] == [3]
        assert [event.at for event in catalog.last_events(subject="/run")] == [3, 5]

    def test_events_are_chained(self, opening: Opening) -> None:
        """Each holds a hash of the one before, also of one that says the same."""
        for _ in range(4):
            opening().add_event(an_event(1))
        hashes = [event.prev_hash for event in opening().events()]
        assert hashes[0] == ""
        assert len(set(hashes)) == 4

    def test_a_cursor_is_a_consumers(self, opening: Opening) -> None:
        """Zero at first; what was noted last stands for everyone."""
        catalog = opening()
        assert catalog.cursor("sink") == 0
        catalog.set_cursor("sink", 7)
        catalog.set_cursor("other", 1)
        catalog.set_cursor("sink", 9)
        assert (opening().cursor("sink"), opening().cursor("other")) == (9, 1)

    def test_a_reader_skips_no_event(self, opening: Opening, crew: Crew) -> None:
        """While four processes write, one who reads on from its cursor gets all, once, in order."""
        catalog, done = opening(), threading.Event()
        read: list[Event] = []

        def follow() -> None:
            last = False
            while not last:
                last = done.is_set()
                read.extend(catalog.events(catalog.cursor("sink"), limit=7))
                catalog.set_cursor("sink", read[-1].seq if read else 0)
                last = last and not catalog.events(catalog.cursor("sink"))

        reader = threading.Thread(target=follow)
        reader.start()
        try:
            crew.together(_tell, opening)
        finally:
            done.set()
            reader.join()
        assert read == opening().events(limit=1000)
        assert len({event.prev_hash for event in read}) == 100
        for member in range(4):
            assert [event.at for event in read if event.actor == f"m{member}"] == list(range(25))

    def test_numbers_of_a_run(self, opening: Opening) -> None:
        """All, in order; the latest of each key and model apart, by step and then by time."""
        catalog = opening()
        catalog.log_metrics("r", [Metric("auc", 0.5, 1, 10), Metric("auc", 0.7, 3, 30), Metric("loss", 2.0, 0, 5)])
        catalog.log_metrics("r", [Metric("auc", 0.6, 2, 40), Metric("loss", 1.0, 0, 6), Metric("auc", 0.9, 1, 1, "m")])
        catalog.log_metrics("other", [Metric("auc", 0.1)])
        assert [(m.step, m.value) for m in catalog.metrics("r", latest=False) if m.key == "auc"] == [
            (1, 0.9),
            (1, 0.5),
            (2, 0.6),
            (3, 0.7),
        ]
        latest = {(m.key, m.model_id): m for m in opening().metrics("r")}
        assert latest == {
            ("auc", ""): Metric("auc", 0.7, 3, 30),
            ("auc", "m"): Metric("auc", 0.9, 1, 1, "m"),
            ("loss", ""): Metric("loss", 1.0, 0, 6),
        }
        assert len(catalog.metrics("r")) == 3
        assert catalog.metrics("none") == []

    def test_numbers_that_are_none(self, opening: Opening) -> None:
        """Not-a-number, infinities and extremes come back."""
        catalog = opening()
        values = {"a": float("nan"), "b": float("inf"), "c": float("-inf"), "d": 0.1, "e": 5e-324}
        catalog.log_metrics("r", [Metric(key, value) for key, value in values.items()])
        for latest in (True, False):
            assert {m.key: repr(m.value) for m in catalog.metrics("r", latest=latest)} == {
                key: repr(value) for key, value in values.items()
            }

    def test_a_tick_is_taken_once(self, opening: Opening) -> None:
        """For each schedule and due time; the latest is known."""
        catalog = opening()
        assert catalog.last_tick("nightly") is None
        assert catalog.tick("nightly", 200, "r1")
        assert not opening().tick("nightly", 200, "r2")
        assert catalog.tick("nightly", 100, "r3")
        assert catalog.tick("hourly", 200, "r4")
        assert (catalog.last_tick("nightly"), catalog.last_tick("hourly")) == (200, 200)

    def test_racing_replicas_tick_once(self, opening: Opening, crew: Crew) -> None:
        """Each due time fires in one of four processes."""
        opening()
        fired = crew.together(_tick, opening)
        assert sorted(due for dues in fired for due in dues) == list(range(30))

    def test_tags(self, opening: Opening) -> None:
        """Set anew they change; others stay."""
        catalog = opening()
        assert catalog.tags("s") == {}
        catalog.tag("s", {"a": "1", "é": "x"})
        catalog.tag("s", {"a": "2", "": ""})
        catalog.tag("t", {"a": "9"})
        catalog.tag("t", {})
        assert opening().tags("s") == {"": "", "a": "2", "é": "x"}


def _tell(opening: Opening, member: int) -> None:
    catalog = opening()
    for at in range(25):
        catalog.add_event(Event(at, f"m{member}", "x", "/"))


def _tick(opening: Opening, member: int) -> list[int]:
    catalog = opening()
    return [due for due in range(30) if catalog.tick("nightly", due, f"m{member}")]
