"""The contract of the catalog: versions, lineage and aliases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from mainspring.lazy import lazy
from mainspring.ports.catalog import Alias, Edge, Event
from mainspring.testing.catalog_rows import Opening, an_entity, an_event, for_all
from mainspring.testing.crew import Crew

if TYPE_CHECKING:
    from hypothesis import strategies as st
else:
    st = lazy("hypothesis.strategies")

__all__ = ["EntityContract"]

Direction = Literal["up", "down"]


class EntityContract:
    """Named versions, lineage and aliases."""

    def test_the_same_content_is_the_same_version(self, opening: Opening) -> None:
        """Other content is the next one; names and kinds count apart."""
        catalog = opening()
        first = catalog.add_entity(an_entity(1))
        assert first == replace(an_entity(1), version=1)
        assert catalog.add_entity(an_entity(2)).version == 2
        again = opening().add_entity(an_entity(3, digest=an_entity(1).digest))
        assert again == first
        assert catalog.add_entity(an_entity(4, name="other", digest=first.digest)).version == 1
        assert catalog.add_entity(an_entity(5, kind="prompt", digest=first.digest)).version == 1
        assert catalog.entity("model", "delay") == replace(an_entity(2), version=2)
        assert catalog.entity("model", "delay", 1) == first
        assert catalog.entity("model", "delay", 3) is None
        assert catalog.entity("model", "none") is None
        assert opening().entity_by_id(first.id) == first
        assert catalog.entity_by_id(an_entity(3).id) is None

    def test_a_version_keeps_the_number_that_it_had_elsewhere(self, opening: Opening) -> None:
        """Where that is free; later ones count on from it."""
        catalog = opening()
        assert catalog.add_entity(replace(an_entity(1), version=7)).version == 7
        assert catalog.add_entity(replace(an_entity(1), version=9)).version == 7
        assert catalog.add_entity(an_entity(2)).version == 8
        assert catalog.add_entity(replace(an_entity(3), version=8)).version == 9
        assert catalog.entity("model", "delay", 7) == replace(an_entity(1), version=7)

    def test_entities_newest_first(self, opening: Opening) -> None:
        """Of a kind, of a name, so many."""
        catalog = opening()
        for number in (3, 1, 2):
            catalog.add_entity(an_entity(number))
            catalog.add_entity(an_entity(number + 10, kind="prompt", name=f"p{number}"))
        assert [entity.created for entity in catalog.entities()] == [13, 12, 11, 3, 2, 1]
        assert [entity.created for entity in catalog.entities("model")] == [3, 2, 1]
        assert [entity.created for entity in catalog.entities("prompt", "p2")] == [12]
        assert [entity.created for entity in catalog.entities(name="delay", limit=1)] == [3]

    def test_edges_and_event_come_with_the_version(self, opening: Opening) -> None:
        """Edges name the version that stands; only a new version is an event."""
        catalog = opening()
        for number, run in ((1, "r1"), (2, "r2")):
            offered = an_entity(number, digest="same")
            catalog.add_entity(offered, [Edge(offered.id, "trained_on", run)], an_event(number))
        stands = an_entity(1).id
        assert catalog.lineage(stands, "up") == [Edge(stands, "trained_on", "r1"), Edge(stands, "trained_on", "r2")]
        assert [event.at for event in catalog.events()] == [1]

    def test_racing_versions(self, opening: Opening, crew: Crew) -> None:
        """Four processes that add the same contents in different orders agree on their versions, without gaps."""
        opening()
        found = crew.together(_add_versions, opening)
        assert found[0] == found[1] == found[2] == found[3]
        assert sorted(found[0].values()) == list(range(1, 13))

    def test_lineage_is_all_paths(self, opening: Opening) -> None:
        """Up and down, to any depth, through diamonds and cycles: as by search over random graphs."""
        catalog, graphs = opening(), iter(range(10**6))
        node = st.integers(0, 7)
        edges = st.lists(st.tuples(node, st.sampled_from(["used", "produced"]), node), max_size=16)

        def check(drawn: list[tuple[int, str, int]], start: int, depth: int) -> None:
            graph = next(graphs)  # each example has names of its own in the one catalog
            made = [Edge(f"{graph}:{src}", rel, f"{graph}:{dst}") for src, rel, dst in drawn]
            catalog.add_edges(made)
            catalog.add_edges(made[:2])
            for direction in ("up", "down"):
                wanted = _reached(made, f"{graph}:{start}", direction, depth)
                found = catalog.lineage(f"{graph}:{start}", direction, depth)
                assert len(found) == len(set(found))
                assert set(found) == wanted

        for_all(check, edges, node, st.sampled_from([0, 1, 2, 3, 32]))

    def test_an_alias_moves_by_revision(self, opening: Opening) -> None:
        """Each move names the revision it is from and leaves its event; a stale one changes nothing."""
        catalog, other = opening(), opening()
        one, two = (catalog.add_entity(an_entity(number)) for number in (1, 2))
        at = Alias("model", "delay", "champion", one.id, 0)
        assert catalog.alias("model", "delay", "champion") is None
        assert catalog.move_alias(replace(at, rev=1), an_event(1)) is None
        assert catalog.move_alias(at, an_event(2)) == replace(at, rev=1)
        assert other.move_alias(replace(at, entity_id=two.id), an_event(3)) is None
        assert other.move_alias(replace(at, entity_id=two.id, rev=1), an_event(4)) == Alias(
            "model", "delay", "champion", two.id, 2
        )
        assert catalog.move_alias(replace(at, rev=1), an_event(5)) is None
        assert catalog.alias("model", "delay", "champion") == Alias("model", "delay", "champion", two.id, 2)
        assert [event.at for event in catalog.events()] == [2, 4]

    def test_aliases_of_a_kind_and_a_name(self, opening: Opening) -> None:
        """In order of kind, name and alias."""
        catalog = opening()
        entity = catalog.add_entity(an_entity(1))
        for kind, name, alias in (("model", "b", "x"), ("model", "a", "y"), ("index", "a", "x"), ("model", "a", "x")):
            assert catalog.move_alias(Alias(kind, name, alias, entity.id, 0), an_event(1))
        assert [(a.kind, a.name, a.alias) for a in opening().aliases()] == [
            ("index", "a", "x"),
            ("model", "a", "x"),
            ("model", "a", "y"),
            ("model", "b", "x"),
        ]
        assert [a.alias for a in catalog.aliases("model", "a")] == ["x", "y"]
        assert [a.kind for a in catalog.aliases(name="b")] == ["model"]

    def test_racing_promoters(self, opening: Opening, crew: Crew) -> None:
        """Exactly one of four wins each revision, and the events are the alias's history in its order."""
        catalog = opening()
        for number in range(4):
            catalog.add_entity(an_entity(number))
        won = crew.together(_promote, opening)
        assert sorted(rev for revs in won for rev in revs) == list(range(1, 26))
        history = [(event.data["rev"], event.actor) for event in catalog.events(what="alias")]
        owner = {rev: f"m{member}" for member, revs in enumerate(won) for rev in revs}
        assert history == [(rev, owner[rev]) for rev in range(1, 26)]
        now = catalog.alias("model", "delay", "champion")
        assert now is not None
        assert (now.rev, now.entity_id) == (25, an_entity(int(owner[25][1:])).id)


def _reached(edges: Iterable[Edge], start: str, direction: Direction, depth: int) -> set[Edge]:
    """Breadth first, by hand: the edges that leave a node fewer than `depth` steps away."""
    found: set[Edge] = set()
    seen, front = {start}, {start}
    for _ in range(depth):
        out = {edge for edge in edges if (edge.src if direction == "up" else edge.dst) in front}
        found |= out
        front = {edge.dst if direction == "up" else edge.src for edge in out} - seen
        seen |= front
    return found


def _add_versions(opening: Opening, member: int) -> dict[str, int]:
    catalog = opening()
    found = {}
    for step in range(12):
        number = (step * (1, 5, 7, 11)[member] + member) % 12
        digest = f"{number:040x}"
        found[digest] = catalog.add_entity(an_entity(100 * member + step, digest=digest)).version
    return found


def _promote(opening: Opening, member: int) -> list[int]:
    catalog, won = opening(), list[int]()
    while True:
        now = catalog.alias("model", "delay", "champion")
        rev = now.rev if now else 0
        if rev == 25:
            return won
        wanted = Alias("model", "delay", "champion", an_entity(member).id, rev)
        if catalog.move_alias(wanted, Event(rev, f"m{member}", "alias.moved", "/model", {"rev": rev + 1})):
            won.append(rev + 1)
