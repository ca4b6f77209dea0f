"""The contract of the catalog: block states, labels and alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from mainspring.lazy import lazy
from mainspring.ports.catalog import Block, Label
from mainspring.testing.catalog_rows import Opening, an_alert, for_all
from mainspring.testing.crew import Crew

if TYPE_CHECKING:
    from hypothesis import strategies as st
else:
    st = lazy("hypothesis.strategies")

__all__ = ["MonitoringContract"]


class MonitoringContract:
    """Block states, labels and alerts."""

    def test_block_states(self, opening: Opening) -> None:
        """The last state that a writer put, with those of other writers, by start."""
        catalog = opening()
        old, new = (Block("m", "x", "", 100, "w1", state, 1) for state in (b"\0old", b"\0\xffnew"))
        rest = [Block("m", "x", "", 100, "w2", b"", 1), Block("m", "a", "s", 50, "w1", b"1", 1)]
        catalog.put_blocks([old, *rest, Block("other", "x", "", 100, "w1", b"2", 1)])
        catalog.put_blocks([replace(new, updated=2)])
        assert opening().blocks("m") == [rest[1], replace(new, updated=2), rest[0]]
        assert catalog.blocks("m", 51) == [replace(new, updated=2), rest[0]]
        assert catalog.blocks("m", 100) == [replace(new, updated=2), rest[0]]
        assert catalog.blocks("m", 101) == []

    def test_the_latest_label_wins(self, opening: Opening) -> None:
        """By what became known when, in whatever order it comes, as by a plain dictionary."""
        catalog, rounds = opening(), iter(range(10**6))
        one = st.tuples(st.integers(0, 2), st.sampled_from(["late", "cost"]), st.integers(0, 4), st.floats(-9, 9))

        def check(batches: list[list[tuple[int, str, int, float]]]) -> None:
            salt, held = next(rounds), dict[tuple[str, str], Label]()
            for received, batch in enumerate(batches):
                labels = [Label(f"{salt}:{number}", name, value, at, received) for number, name, at, value in batch]
                newer = sum(_keep(held, label) for label in labels)
                assert catalog.add_labels(labels) == newer
            found = catalog.labels(f"{salt}:{number}" for number in range(4))
            assert {(label.prediction_id, label.name): label for label in found} == held
            assert len(found) == len(held)

        for_all(check, st.lists(st.lists(one, max_size=6), max_size=4))

    def test_labels_by_arrival(self, opening: Opening) -> None:
        """Those received after a moment, in order; many predictions at once."""
        catalog = opening()
        assert catalog.add_labels([Label(f"p{n}", "late", float(n), 5, 1000 + n % 10) for n in range(1200)]) == 1200
        assert catalog.add_labels([Label("p0", "late", -1.0, 6, 2000), Label("p1", "late", -1.0, 4, 2000)]) == 1
        assert len(catalog.labels(f"p{n}" for n in range(2000))) == 1200
        after = catalog.labels_after(1008)
        assert [label.received for label in after] == [1009] * 120 + [2000]
        assert after[-1] == Label("p0", "late", -1.0, 6, 2000)
        assert len(catalog.labels_after(0, limit=5)) == 5
        assert {label.received for label in catalog.labels_after(0, limit=5)} == {1000}
        pages, behind = list[Label](), None
        while page := catalog.labels_after(1001, limit=50, behind=behind):  # 120 were received at each moment
            pages += page
            behind = page[-1]
        assert pages == catalog.labels_after(1001)
        assert len(pages) == 8 * 120 + 1
        assert catalog.labels_after(2000) == []
        assert catalog.labels([]) == []

    def test_one_alert_is_open_for_a_cause(self, opening: Opening) -> None:
        """Another for the same cause is the one that is open, until that is resolved for good."""
        catalog, first = opening(), an_alert("a")
        assert catalog.open_alert(first) == first
        assert opening().open_alert(an_alert("b", opened=2)) == first
        assert catalog.open_alert(an_alert("c", "other", opened=3)).id == "c"
        acknowledged = replace(first, state="acknowledged", score=11.0, detail={"by": "me"}, acked_by="me")
        assert not catalog.move_alert(acknowledged, "pending")
        assert catalog.move_alert(acknowledged, "firing")
        assert catalog.open_alert(an_alert("b", opened=2)) == acknowledged
        muted = replace(acknowledged, state="muted", muted_until=7)
        assert catalog.move_alert(muted, "acknowledged")
        assert not catalog.move_alert(replace(muted, muted_until=8), "acknowledged")
        assert opening().open_alert(an_alert("b", opened=2)) == muted
        resolved = replace(muted, state="resolved", resolved=9, muted_until=None)
        assert catalog.move_alert(resolved, "muted")
        assert not catalog.move_alert(resolved, "muted")
        again = an_alert("b", opened=4)
        assert catalog.open_alert(again) == again
        assert not catalog.move_alert(replace(resolved, state="firing", resolved=None), "resolved")
        assert [alert.id for alert in opening().alerts()] == ["b", "c", "a"]
        assert opening().alerts()[-1] == resolved

    def test_alerts_newest_first(self, opening: Opening) -> None:
        """The open ones, those of a monitor, so many."""
        catalog = opening()
        for number in (2, 0, 1):
            catalog.open_alert(an_alert(f"a{number}", f"f{number}", number, "m0" if number == 0 else "m"))
        assert catalog.move_alert(replace(an_alert("a2"), state="resolved", resolved=9), "firing")
        assert [alert.id for alert in catalog.alerts()] == ["a2", "a1", "a0"]
        assert [alert.id for alert in catalog.alerts(open_only=True)] == ["a1", "a0"]
        assert [alert.id for alert in catalog.alerts(monitor="m", limit=1)] == ["a2"]
        assert [alert.id for alert in catalog.alerts(monitor="m0", open_only=True)] == ["a0"]

    def test_an_alert_without_a_number(self, opening: Opening) -> None:
        """What could not be computed is not a number when it comes back, and infinite stays infinite."""
        catalog = opening()
        catalog.open_alert(replace(an_alert("a"), score=float("inf"), threshold=float("nan"), effect=float("nan")))
        (found,) = catalog.alerts()
        assert [repr(number) for number in (found.score, found.threshold, found.effect)] == ["inf", "nan", "nan"]

    def test_racing_monitors_open_one(self, opening: Opening, crew: Crew) -> None:
        """Four replicas that see the same faults open each alarm once and close it once."""
        catalog = opening()
        told = crew.together(_alarm, opening)
        assert told[0] == told[1] == told[2] == told[3]
        assert sorted(alert.id for alert in catalog.alerts(open_only=True)) == sorted(told[0])
        closed = crew.together(_all_clear, opening)
        assert sorted(one for ones in closed for one in ones) == sorted(told[0])
        assert len(catalog.alerts()) == 15
        assert catalog.alerts(open_only=True) == []


def _keep(held: dict[tuple[str, str], Label], label: Label) -> bool:
    key = (label.prediction_id, label.name)
    if key in held and held[key].at >= label.at:
        return False
    held[key] = label
    return True


def _alarm(opening: Opening, member: int) -> list[str]:
    catalog = opening()
    return [catalog.open_alert(an_alert(f"{n}-m{member}", f"f{n}")).id for n in range(15)]


def _all_clear(opening: Opening, member: int) -> list[str]:
    catalog = opening()
    ended = [replace(alert, state="resolved", resolved=9) for alert in catalog.alerts(open_only=True)]
    return [alert.id for alert in ended if catalog.move_alert(alert, "firing")]
