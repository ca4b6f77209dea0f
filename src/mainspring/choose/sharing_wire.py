"""How one process asks another for what a store does: a call and its answer as bytes, typed on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from mainspring import errors
from mainspring.errors import InternalError, MainspringError
from mainspring.lazy import lazy
from mainspring.ports.vector_store import (
    Durability,
    Filter,
    Hits,
    Page,
    Point,
    Query,
    Schema,
    Sparse,
    Stats,
    Stored,
    VectorStore,
    Where,
    filter_from_json,
    filter_to_json,
)

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["Call", "Reply", "answer", "call_of", "decode_call", "decode_reply", "encode", "result_of"]

Method = Literal[
    "create", "schema", "drop", "upsert", "set_payload", "delete", "search", "scroll", "count", "flush", "optimize",
    "snapshot", "restore", "stats",
]  # fmt: skip


class _Fault(msgspec.Struct, frozen=True):
    kind: str
    what: str
    code: str
    why: str
    origin: str
    fix: str


class _Point(msgspec.Struct, frozen=True, array_like=True):
    id: str
    vector: bytes
    payload: dict[str, object]
    text: str
    sparse: Sparse | None


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    id: str
    payload: dict[str, object]
    vector: bytes | None


class _Page(msgspec.Struct, frozen=True):
    points: tuple[_Stored, ...]
    cursor: str | None


class _Query(msgspec.Struct, frozen=True):
    dense: bytes | None
    sparse: Sparse | None
    text: str | None
    filter: dict[str, object] | None
    k: int
    recall_target: float
    candidates: int
    fields: tuple[str, ...] | None


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is asked of one index; only what the method takes is given."""

    method: Method
    index: str
    schema: Schema | None = None
    points: tuple[_Point, ...] = ()
    version: int | None = None
    ids: tuple[str, ...] | None = None
    filter: dict[str, object] | None = None
    patch: dict[str, object] | None = None
    query: _Query | None = None
    cursor: str | None = None
    limit: int = 1000
    fields: tuple[str, ...] | None = None
    vectors: bool = False
    file: str = ""


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was found, or the fault."""

    fault: _Fault | None = None
    number: int | None = None
    schema: Schema | None = None
    hits: Hits | None = None
    page: _Page | None = None
    durability: Durability | None = None
    stats: Stats | None = None


encode = msgspec.msgpack.Encoder().encode
decode_call = msgspec.msgpack.Decoder(Call).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


def call_of(method: Method, index: str, **given: object) -> Call:
    """A call as it is sent."""
    values = dict(given)
    where = values.pop("where", None)
    if where is not None:
        values |= (
            {"ids": tuple(where)} if isinstance(where, Sequence) else {"filter": filter_to_json(cast(Filter, where))}
        )
    if isinstance(filter := values.get("filter"), msgspec.Struct):
        values["filter"] = filter_to_json(cast(Filter, filter))
    if "points" in values:
        values["points"] = tuple(_sent(point) for point in cast("Sequence[Point]", values["points"]))
    if isinstance(query := values.get("query"), Query):
        values["query"] = _Query(
            None if query.dense is None else _bytes(query.dense),
            query.sparse,
            query.text,
            None if query.filter is None else filter_to_json(query.filter),
            query.k,
            query.recall_target,
            query.candidates,
            query.fields,
        )
    if "file" in values:
        values["file"] = str(values["file"])
    return Call(method, index, **values)  # type: ignore[arg-type]


def answer(store: VectorStore, call: Call) -> Reply:
    """Carry a call out; a fault becomes a part of the answer."""
    try:
        return _carried_out(store, call)
    except MainspringError as error:
        return Reply(_Fault(type(error).__name__, error.what, error.code, error.why, error.origin, error.fix))


def result_of(reply: Reply) -> object:
    """What a call has found.

    Raises:
        MainspringError: the fault, of the kind that it was.
    """
    if reply.fault is not None:
        fault = reply.fault
        kind = getattr(errors, fault.kind, InternalError)
        raise kind(fault.what, code=fault.code, why=fault.why, origin=fault.origin, fix=fault.fix)
    if reply.page is not None:
        points = (Stored(one.id, one.payload, _vector(one.vector)) for one in reply.page.points)
        return Page(tuple(points), reply.page.cursor)
    found = (reply.number, reply.schema, reply.hits, reply.durability, reply.stats)
    return next((value for value in found if value is not None), None)


def _carried_out(store: VectorStore, call: Call) -> Reply:
    match call.method:
        case "search":
            return Reply(hits=store.search(call.index, _query(call.query)))
        case "upsert":
            return Reply(number=store.upsert(call.index, [_received(one) for one in call.points], call.version))
        case "set_payload":
            store.set_payload(call.index, _where(call), call.patch or {})
        case "delete":
            store.delete(call.index, _where(call))
        case "scroll":
            return Reply(page=_page(store, call))
        case "count":
            return Reply(number=store.count(call.index, _filter(call.filter)))
        case "flush":
            return Reply(durability=store.flush(call.index))
        case "stats":
            return Reply(stats=store.stats(call.index))
        case _:
            return _about_the_whole(store, call)
    return Reply()


def _about_the_whole(store: VectorStore, call: Call) -> Reply:
    match call.method:
        case "create" if call.schema is not None:
            store.create(call.index, call.schema)
        case "schema":
            return Reply(schema=store.schema(call.index))
        case "drop":
            store.drop(call.index)
        case "optimize":
            store.optimize(call.index)
        case "snapshot":
            store.snapshot(call.index, Path(call.file))
        case "restore":
            store.restore(call.index, Path(call.file))
    return Reply()


def _page(store: VectorStore, call: Call) -> _Page:
    found = store.scroll(
        call.index, _filter(call.filter), call.cursor, call.limit, fields=call.fields, vectors=call.vectors
    )
    points = (
        _Stored(one.id, dict(one.payload), None if one.vector is None else _bytes(one.vector)) for one in found.points
    )
    return _Page(tuple(points), found.cursor)


def _filter(given: Mapping[str, object] | None) -> Filter | None:
    return None if given is None else filter_from_json(given)


def _where(call: Call) -> Where:
    return call.ids if call.ids is not None else filter_from_json(call.filter)


def _query(sent: _Query | None) -> Query:
    assert sent is not None
    return Query(
        _vector(sent.dense),
        sent.sparse,
        sent.text,
        _filter(sent.filter),
        sent.k,
        sent.recall_target,
        sent.candidates,
        sent.fields,
    )


def _sent(point: Point) -> _Point:
    return _Point(point.id, _bytes(point.vector), dict(point.payload), point.text, point.sparse)


def _received(sent: _Point) -> Point:
    return Point(sent.id, np.frombuffer(sent.vector, "<f4"), sent.payload, sent.text, sent.sparse)


def _bytes(vector: object) -> bytes:
    return np.ascontiguousarray(vector, "<f4").tobytes()


def _vector(sent: bytes | None) -> np.ndarray | None:
    return None if sent is None else np.frombuffer(sent, "<f4")
