"""Entities, edges, lineage and aliases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from mainspring.adapters.sqlite.connection import Connections
from mainspring.adapters.sqlite.events import append_event
from mainspring.ports.catalog import Alias, Edge, Entity, Event

__all__ = ["EntityTables"]

_ENTITY = "id, kind, name, version, digest, spec, created"
_encode = msgspec.json.Encoder(order="sorted").encode
_object = msgspec.json.Decoder(dict[str, object]).decode

# Paths are followed breadth first; `union` drops repeated rows, so a diamond or a cycle ends. One text for each way, so
# that each step finds its edges in an index.
_LINEAGE = """
with recursive walk (subject, depth) as (
    select ?1, 0
    union
    select edge.{there}, walk.depth + 1 from walk join edge on edge.{here} = walk.subject where walk.depth < ?2
)
select distinct edge.src, edge.rel, edge.dst
from (select subject, min(depth) depth from walk group by subject) seen join edge on edge.{here} = seen.subject
where seen.depth < ?2
order by 1, 2, 3
"""
_WAYS = {"up": _LINEAGE.format(here="src", there="dst"), "down": _LINEAGE.format(here="dst", there="src")}


def _entity(row: tuple[Any, ...]) -> Entity:
    return Entity(*[*row[:5], _object(str(row[5])), row[6]])


class EntityTables:
    """The part of the catalog that names things."""

    _db: Connections

    def add_entity(self, entity: Entity, edges: Sequence[Edge] = (), event: Event | None = None) -> Entity:
        """Record a version: the row with the same content, or the next version, which is no less than the offered."""
        with self._db.write() as db:
            same = db.execute(
                f"select {_ENTITY} from entity where kind = ? and name = ? and digest = ?",
                (entity.kind, entity.name, entity.digest),
            ).fetchone()
            if same is None:
                following = db.execute(
                    "select coalesce(max(version), 0) + 1 from entity where kind = ? and name = ?",
                    (entity.kind, entity.name),
                ).fetchone()[0]
                version = max(int(following), entity.version)
                stored = msgspec.structs.replace(entity, version=version)
                db.execute(
                    "insert into entity values (?,?,?,?,?,?,?)",
                    (
                        stored.id,
                        stored.kind,
                        stored.name,
                        version,
                        stored.digest,
                        _encode(stored.spec).decode(),
                        stored.created,
                    ),
                )
                if event is not None:
                    append_event(db, event)
            else:
                stored = _entity(same)
            # Edges name the id that was offered; the row that stands may have another.
            own = [tuple(stored.id if end == entity.id else end for end in (e.src, e.rel, e.dst)) for e in edges]
            db.executemany("insert or ignore into edge values (?,?,?)", own)
            return stored

    def entity(self, kind: str, name: str, version: int | None = None) -> Entity | None:
        """A version; the newest when none is named."""
        rows = self._db.read(
            f"select {_ENTITY} from entity where kind = ?1 and name = ?2 and (?3 is null or version = ?3) "
            "order by version desc limit 1",
            (kind, name, version),
        )
        return _entity(rows[0]) if rows else None

    def entity_by_id(self, entity_id: str) -> Entity | None:
        """A version by id."""
        rows = self._db.read(f"select {_ENTITY} from entity where id = ?", (entity_id,))
        return _entity(rows[0]) if rows else None

    def entities(self, kind: str | None = None, name: str | None = None, *, limit: int = 500) -> list[Entity]:
        """Versions, the newest first."""
        rows = self._db.read(
            f"select {_ENTITY} from entity where (?1 is null or kind = ?1) and (?2 is null or name = ?2) "
            "order by created desc, id desc limit ?3",
            (kind, name, limit),
        )
        return [_entity(row) for row in rows]

    def add_edges(self, edges: Sequence[Edge]) -> None:
        """Record relations."""
        with self._db.write() as db:
            db.executemany("insert or ignore into edge values (?,?,?)", [(e.src, e.rel, e.dst) for e in edges])

    def lineage(self, subject: str, direction: Literal["up", "down"], depth: int = 32) -> list[Edge]:
        """All edges on paths from a subject, in one query."""
        return [Edge(*map(str, row)) for row in self._db.read(_WAYS[direction], (subject, depth))]

    def alias(self, kind: str, name: str, alias: str) -> Alias | None:
        """Where an alias points."""
        rows = self._db.read(
            "select kind, name, alias, entity_id, rev from alias where kind = ? and name = ? and alias = ?",
            (kind, name, alias),
        )
        return Alias(*rows[0]) if rows else None

    def aliases(self, kind: str | None = None, name: str | None = None) -> list[Alias]:
        """All aliases, of a kind, of a name."""
        rows = self._db.read(
            "select kind, name, alias, entity_id, rev from alias "
            "where (?1 is null or kind = ?1) and (?2 is null or name = ?2) order by 1, 2, 3",
            (kind, name),
        )
        return [Alias(*row) for row in rows]

    def move_alias(self, alias: Alias, event: Event) -> Alias | None:
        """Compare-and-swap on the revision, with its event."""
        moved = msgspec.structs.replace(alias, rev=alias.rev + 1)
        with self._db.write(durable=True) as db:
            if alias.rev == 0:
                sql = "insert or ignore into alias (entity_id, rev, kind, name, alias) values (?,?,?,?,?)"
                values: tuple[object, ...] = (alias.entity_id, moved.rev, alias.kind, alias.name, alias.alias)
            else:
                sql = "update alias set entity_id = ?, rev = ? where kind = ? and name = ? and alias = ? and rev = ?"
                values = (alias.entity_id, moved.rev, alias.kind, alias.name, alias.alias, alias.rev)
            if db.execute(sql, values).rowcount != 1:
                return None
            append_event(db, event)
            return moved
