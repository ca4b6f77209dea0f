"""What a Feast repository defines, as frozen values, and what could not be read of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import msgspec

from mainspring.protocols.feast.expressions import Function

__all__ = [
    "FeastEntity",
    "FeastField",
    "FeastOnDemand",
    "FeastPart",
    "FeastRepository",
    "FeastRequest",
    "FeastService",
    "FeastSource",
    "FeastView",
    "Note",
]


class Note(msgspec.Struct, frozen=True):
    """A line of the report.

    Attributes:
        what: what it is about: ``feature view driver_stats``.
        why: what changes, or why it could not be carried; empty where it simply was.
        where: the line of the repository: ``driver.py:12``.
        fix: what to do now, or "".
    """

    what: str
    why: str = ""
    where: str = ""
    fix: str = ""


class FeastField(msgspec.Struct, frozen=True):
    """A column of a schema.

    Attributes:
        type: as Feast spells it: ``Int64``, ``Array(Float32)``.
        length: elements of a vector, 0 where it does not say.
    """

    name: str
    type: str
    length: int = 0
    doc: str = ""
    where: str = ""


class FeastEntity(msgspec.Struct, frozen=True):
    """An entity: its name, its join key, and the key's type, or "" where it does not say."""

    name: str
    key: str
    type: str
    where: str


class FeastSource(msgspec.Struct, frozen=True):
    """A table that views are made of.

    Attributes:
        kind: the class in Feast: ``FileSource``, ``BigQuerySource``.
        pushed: whether it is the batch source of a push source, whose name it bears.
        path: file, folder or url, of a `FileSource`.
        table: a table's full name; query: a query in place of one.
        mapping: feature name by column name.
        format: the class of a file's format, or "".
        unknown: whether its place is not known before the file runs.
        endpoint: an S3 server of one's own, or "".
    """

    kind: str
    name: str
    where: str
    pushed: bool = False
    path: str = ""
    table: str = ""
    query: str = ""
    time: str = ""
    created: str = ""
    mapping: tuple[tuple[str, str], ...] = ()
    format: str = ""
    endpoint: str = ""
    unknown: bool = False


class FeastRequest(msgspec.Struct, frozen=True):
    """Values that a request carries."""

    name: str
    fields: tuple[FeastField, ...]
    where: str


class FeastView(msgspec.Struct, frozen=True):
    """A feature view; `fields` may name its keys too, and is empty where Feast would look into the source."""

    name: str
    entities: tuple[FeastEntity, ...]
    fields: tuple[FeastField, ...]
    ttl: timedelta
    online: bool
    source: FeastSource
    where: str


class FeastPart(msgspec.Struct, frozen=True):
    """A view or an on-demand view by its name, and those of its features that are taken; None is all."""

    name: str
    features: tuple[str, ...] | None = None


class FeastOnDemand(msgspec.Struct, frozen=True):
    """An on-demand feature view.

    Attributes:
        parts: the views that it reads.
        mode: ``pandas``, ``python`` or ``substrait``.
        singleton: whether a function of mode ``python`` takes one row.
        function: its code.
        stored: whether Feast computes it when rows are written.
    """

    name: str
    parts: tuple[FeastPart, ...]
    requests: tuple[FeastRequest, ...]
    fields: tuple[FeastField, ...]
    mode: str
    singleton: bool
    function: Function
    where: str
    stored: bool = False


class FeastService(msgspec.Struct, frozen=True):
    """A feature service."""

    name: str
    parts: tuple[FeastPart, ...]
    where: str


class FeastRepository(msgspec.Struct, frozen=True):
    """A repository as far as it can be read without running it.

    Attributes:
        project: its name.
        folder: where it is, an absolute path.
        online: the settings of the online store; offline: those of the offline store.
        auth: who may ask Feast's servers: ``no_auth``, ``oidc``, ``kubernetes``.
        files: the Python files that were read, relative to the folder.
        left: what could not be read.
    """

    project: str
    folder: str
    online: Mapping[str, object]
    offline: Mapping[str, object]
    auth: str = "no_auth"
    sources: tuple[FeastSource, ...] = ()
    views: tuple[FeastView, ...] = ()
    on_demand: tuple[FeastOnDemand, ...] = ()
    services: tuple[FeastService, ...] = ()
    files: tuple[str, ...] = ()
    left: tuple[Note, ...] = ()
