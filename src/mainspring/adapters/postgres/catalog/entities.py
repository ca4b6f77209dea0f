"""Entities, edges, lineage and aliases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, LiteralString

import msgspec

from mainspring.adapters.postgres.catalog.events import append_event
from mainspring.adapters.postgres.catalog.tables import Cursor, Tables, alone, kept, many
from mainspring.ports.catalog import Alias, Edge, Entity, Event

__all__ = ["EntityTables", "insert_edges"]

_ENTITY: LiteralString = "id, kind, name, version, digest, spec, created"
_ALIAS: LiteralString = "kind, name, alias, entity_id, rev"
_encode = msgspec.json.Encoder(order="sorted").encode
_object = msgspec.json.Decoder(dict[str, object]).decode

# Paths are followed breadth first; `union` drops repeated rows, so a diamond or a cycle ends. One text for each way, so
# that each step finds its edges in an index.
_LINEAGE: LiteralString = """
with recursive walk (subject, depth) as (
    select %(subject)s::text collate "C", 0
    union
    select edge.THERE, walk.depth + 1 from walk join edge on edge.HERE = walk.subject where walk.depth < %(depth)s
)
select distinct edge.src, edge.rel, edge.dst
from (select subject, min(depth) as depth from walk group by subject) as seen join edge on edge.HERE = seen.subject
where seen.depth < %(depth)s
order by 1, 2, 3
"""
_UP: LiteralString = _LINEAGE.replace("THERE", "dst").replace("HERE", "src")
_DOWN: LiteralString = _LINEAGE.replace("THERE", "src").replace("HERE", "dst")


def insert_edges(cursor: Cursor, edges: Sequence[Edge]) -> None:
    """Record relations inside a transaction; known ones are ignored."""
    sql: LiteralString = "insert into edge values (%s, %s, %s) on conflict do nothing"
    many(cursor, sql, sorted({(edge.src, edge.rel, edge.dst) for edge in edges}))


def _entity(row: tuple[Any, ...]) -> Entity:
    return Entity(*[*row[:5], _object(row[5]), row[6]])


class EntityTables(Tables):
    """The part of the catalog that names things."""

    def add_entity(self, entity: Entity, edges: Sequence[Edge] = (), event: Event | None = None) -> Entity:
        """Record a version: the row with the same content, or the next version, which is no less than the offered."""
        of = (entity.kind, entity.name)
        with self.write() as cursor:
            alone(cursor, f"entity {entity.kind} {entity.name}")
            sql = "select " + _ENTITY + " from entity where kind = %s and name = %s and digest = %s"
            same = cursor.execute(sql, (*of, entity.digest)).fetchone()
            if same is None:
                sql = "select coalesce(max(version), 0) + 1 from entity where kind = %s and name = %s"
                ((following,),) = cursor.execute(sql, of).fetchall()
                stored = msgspec.structs.replace(entity, version=max(following, entity.version))
                values = (stored.id, *of, stored.version, stored.digest, _encode(stored.spec).decode(), stored.created)
                cursor.execute("insert into entity (" + _ENTITY + ") values (%s, %s, %s, %s, %s, %s, %s)", kept(values))
            else:
                stored = _entity(same)
            # Edges name the id that was offered; the row that stands may have another.
            own = [Edge(*(stored.id if end == entity.id else end for end in (e.src, e.rel, e.dst))) for e in edges]
            insert_edges(cursor, own)
            if same is None and event is not None:
                append_event(cursor, event)
            return stored

    def entity(self, kind: str, name: str, version: int | None = None) -> Entity | None:
        """A version; the newest when none is named."""
        sql = (
            "select " + _ENTITY + " from entity where kind = %s and name = %s "
            "and (%s::bigint is null or version = %s) order by version desc limit 1"
        )
        rows = self.read(sql, (kind, name, version, version))
        return _entity(rows[0]) if rows else None

    def entity_by_id(self, entity_id: str) -> Entity | None:
        """A version by id."""
        rows = self.read("select " + _ENTITY + " from entity where id = %s", (entity_id,))
        return _entity(rows[0]) if rows else None

    def entities(self, kind: str | None = None, name: str | None = None, *, limit: int = 500) -> list[Entity]:
        """Versions, the newest first."""
        sql = (
            "select " + _ENTITY + " from entity where (%s::text is null or kind = %s) "
            "and (%s::text is null or name = %s) order by created desc, id desc limit %s"
        )
        return [_entity(row) for row in self.read(sql, (kind, kind, name, name, limit))]

    def add_edges(self, edges: Sequence[Edge]) -> None:
        """Record relations."""
        with self.write() as cursor:
            insert_edges(cursor, edges)

    def lineage(self, subject: str, direction: Literal["up", "down"], depth: int = 32) -> list[Edge]:
        """All edges on paths from a subject, in one query."""
        with self.database.connection() as connection:
            found = connection.execute(
                _UP if direction == "up" else _DOWN, {"subject": subject, "depth": depth}
            ).fetchall()
        return [Edge(*row) for row in found]

    def alias(self, kind: str, name: str, alias: str) -> Alias | None:
        """Where an alias points."""
        sql = "select " + _ALIAS + " from alias where kind = %s and name = %s and alias = %s"
        rows = self.read(sql, (kind, name, alias))
        return Alias(*rows[0]) if rows else None

    def aliases(self, kind: str | None = None, name: str | None = None) -> list[Alias]:
        """All aliases, of a kind, of a name."""
        sql = (
            "select " + _ALIAS + " from alias where (%s::text is null or kind = %s) "
            "and (%s::text is null or name = %s) order by kind, name, alias"
        )
        return [Alias(*row) for row in self.read(sql, (kind, kind, name, name))]

    def move_alias(self, alias: Alias, event: Event) -> Alias | None:
        """Compare-and-swap on the revision, with its event."""
        moved = msgspec.structs.replace(alias, rev=alias.rev + 1)
        named = (alias.kind, alias.name, alias.alias)
        with self.write() as cursor:
            if alias.rev == 0:
                sql: LiteralString = (
                    "insert into alias (entity_id, rev, kind, name, alias) values (%s, %s, %s, %s, %s) "
                    "on conflict do nothing"
                )
                values: tuple[object, ...] = (alias.entity_id, moved.rev, *named)
            else:
                sql = (
                    "update alias set entity_id = %s, rev = %s where kind = %s and name = %s and alias = %s "
                    "and rev = %s"
                )
                values = (alias.entity_id, moved.rev, *named, alias.rev)
            if cursor.execute(sql, values).rowcount != 1:
                return None
            append_event(cursor, event)
            return moved
