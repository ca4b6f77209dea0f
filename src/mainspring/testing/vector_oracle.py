"""What a vector store should answer, computed slowly: filters by their rules, nearness by looking at each row."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mainspring.errors import MainspringError
from mainspring.lazy import lazy
from mainspring.ports.vector_store import (
    And,
    Any,
    Eq,
    Exists,
    Field,
    Filter,
    Hits,
    In,
    Not,
    Or,
    Point,
    Range,
    Schema,
    VectorStore,
    Where,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pytest
    from hypothesis import strategies as st
else:
    np = lazy("numpy")
    pytest = lazy("pytest")
    st = lazy("hypothesis.strategies")

__all__ = [
    "ALL",
    "DIMS",
    "FIELDS",
    "Opening",
    "Oracle",
    "clustered",
    "code_of",
    "everything",
    "filled",
    "filters",
    "id_of",
    "ids_of",
    "matches",
    "payloads",
    "schema_of",
    "units",
]

DIMS = 16
ALL = Not(Or(()))
"""Every point."""

FIELDS = (
    Field("lang", "string"),
    Field("meta.kind", "string"),
    Field("size", "integer"),
    Field("weight", "number"),
    Field("open", "boolean"),
    Field("acl", "strings"),
    Field("years", "integers"),
)
"""A field of each type, one with a dot."""

Opening = Callable[[], VectorStore]

_BIG = (1 << 53) - 1
_TEXTS = ("", "en", "de", "EN", "group:staff", 'o\'hara "x" \\ %', "naïve 日本 🙂", "a.b", " en ", "null", "true", "1")
_INTEGERS = (0, 1, -1, 7, 2024, _BIG, -_BIG)
_NUMBERS = (0.0, 0.1, -2.5, 1e-300, 1e300, 7.0, 1 / 3)
_VALUES: Mapping[str, tuple[object, ...]] = {
    "string": _TEXTS,
    "integer": _INTEGERS,
    "number": (*_NUMBERS, 7, -3),
    "boolean": (True, False),
    "strings": _TEXTS,
    "integers": _INTEGERS,
}


def id_of(number: int) -> str:
    """The point's id of a number, in no order that a number has."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))


def units(count: int, dims: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Vectors of unit length, float32[count, dims]."""
    found = np.random.default_rng(seed).normal(size=(count, dims))
    scaled: npt.NDArray[np.float32] = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def clustered(count: int, dims: int, seed: int = 0, clusters: int = 64) -> npt.NDArray[np.float32]:
    """Vectors of unit length in clusters of unequal size, as embeddings of texts are, float32[count, dims].

    Those of two seeds share their centres, so that one may be looked for among the others.
    """
    centres = np.random.default_rng(dims).normal(size=(clusters, dims))
    chance = np.random.default_rng(seed)
    weights = 1 / np.arange(1, clusters + 1)
    chosen = chance.choice(clusters, size=count, p=weights / weights.sum())
    found = centres[chosen] + chance.normal(size=(count, dims)) * 0.7
    scaled: npt.NDArray[np.float32] = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def matches(filter: Filter, payload: Mapping[str, object]) -> bool:
    """Whether a payload fulfils a filter: a leaf on a missing field is false, and its `not` is therefore true."""
    match filter:
        case And(parts):
            return all(matches(part, payload) for part in parts)
        case Or(parts):
            return any(matches(part, payload) for part in parts)
        case Not(part):
            return not matches(part, payload)
    value = payload.get(filter.field)
    if value is None or value == []:
        return False
    match filter:
        case Eq(_, wanted):
            return value == wanted
        case In(_, values):
            return value in values
        case Any(_, values):
            return bool(set(value) & set(values))  # type: ignore[call-overload]
        case Range():
            return all(_within(value, name, bound) for name, bound in filter.bounds)
        case Exists():
            return True


def _within(value: object, name: str, bound: float) -> bool:
    assert isinstance(value, (int, float))
    return {"gt": value > bound, "gte": value >= bound, "lt": value < bound, "lte": value <= bound}[name]


class Oracle:
    """An index that is kept in a dictionary."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.rows: dict[str, tuple[npt.NDArray[np.float32], dict[str, object]]] = {}
        self._versions: dict[str, int] = {}

    def upsert(self, _: str, points: Sequence[Point], version: int | None = None) -> None:
        """Write points whole, but not over those of a greater version."""
        for point in points:
            if version is not None and self._versions.get(point.id, -1) > version:
                continue
            self._versions.pop(point.id, None)
            if version is not None:
                self._versions[point.id] = version
            vector = np.asarray(point.vector, np.float32)
            if self.schema.metric == "cosine":
                vector = vector / np.linalg.norm(vector)
            self.rows[point.id] = (vector, {key: value for key, value in point.payload.items() if value is not None})

    def set_payload(self, _: str, where: Where, patch: Mapping[str, object]) -> None:
        """Put keys into payloads, and take keys out."""
        for id in self._chosen(where):
            vector, payload = self.rows[id]
            merged = {**payload, **patch}
            self.rows[id] = (vector, {key: value for key, value in merged.items() if value is not None})

    def delete(self, _: str, where: Where) -> None:
        """Remove points."""
        for id in self._chosen(where):
            del self.rows[id]
            self._versions.pop(id, None)

    def ids(self, filter: Filter | None = None) -> list[str]:
        """The ids of the points that fulfil a filter, in order."""
        return sorted(id for id, (_, payload) in self.rows.items() if filter is None or matches(filter, payload))

    def nearest(
        self, vector: Sequence[float] | npt.NDArray[np.float32], k: int, filter: Filter | None = None
    ) -> dict[str, float]:
        """The scores of the `k` nearest points that fulfil a filter, the nearest first."""
        sought = np.asarray(vector, np.float64)
        if self.schema.metric == "cosine":
            sought = sought / np.linalg.norm(sought)
        scores = {id: float(self.rows[id][0] @ sought) for id in self.ids(filter)}
        return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:k])

    def _chosen(self, where: Where) -> list[str]:
        if isinstance(where, (list, tuple)):
            return [id for id in dict.fromkeys(where) if id in self.rows]
        return self.ids(where)  # type: ignore[arg-type]


# -- what tests draw --------------------------------------------------------------------------------------------------


def payloads() -> st.SearchStrategy[dict[str, object]]:
    """Payloads of `FIELDS`, with fields missing, null and empty, and with keys that no filter names."""
    kinds: dict[str, st.SearchStrategy[object]] = {}
    for field in FIELDS:
        one = st.sampled_from(_VALUES[field.type])
        kinds[field.name] = st.none() | (st.lists(one, max_size=3) if field.type in ("strings", "integers") else one)
    kinds["note"] = st.sampled_from([None, "\u0000", "x" * 300, {"deep": [1, {"er": None}]}, [], 1.5])
    return st.fixed_dictionaries({}, optional=kinds)


def filters() -> st.SearchStrategy[Filter]:
    """Filters over `FIELDS`: each kind of leaf on each type that has it, nested."""
    leaves: list[st.SearchStrategy[Filter]] = []
    for field in FIELDS:
        values = st.sampled_from(_VALUES[field.type])
        some = st.lists(values, max_size=4).map(tuple)
        leaves.append(st.builds(Exists, st.just(field.name)))
        if field.type in ("strings", "integers"):
            leaves.append(st.builds(Any, st.just(field.name), some))
            continue
        leaves += [st.builds(Eq, st.just(field.name), values), st.builds(In, st.just(field.name), some)]
        if field.type in ("integer", "number"):
            leaves.append(_ranges(field.name, values))
    return st.recursive(
        st.one_of(leaves),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3).map(lambda parts: And(tuple(parts))),
            st.lists(inner, max_size=3).map(lambda parts: Or(tuple(parts))),
            inner.map(Not),
        ),
        max_leaves=8,
    )


def _ranges(name: str, values: st.SearchStrategy[object]) -> st.SearchStrategy[Filter]:
    bounds = st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), values, min_size=1, max_size=2)
    return bounds.map(lambda given: Range(name, **given))  # type: ignore[arg-type]


# -- what tests share ------------------------------------------------------------------------------------------------


def schema_of(dims: int = DIMS, **others: object) -> Schema:
    """A schema with a field of each type."""
    return Schema(dims=dims, fields=FIELDS, words=8.0, **others)  # type: ignore[arg-type]


def everything(
    store: VectorStore, index: str, filter: Filter | None = None, limit: int = 7
) -> Iterator[tuple[str, dict[str, object]]]:
    """Ids and payloads of all points that fulfil a filter, by small pages."""
    cursor = None
    while True:
        page = store.scroll(index, filter, cursor, limit)
        assert len(page.points) <= limit
        yield from ((point.id, dict(point.payload)) for point in page.points)
        if (cursor := page.cursor) is None:
            return


def filled(store: VectorStore, index: str, count: int, dims: int = DIMS, **others: object) -> Oracle:
    """An index of points whose size is their number, and its oracle."""
    oracle = Oracle(schema_of(dims, **others))
    store.create(index, oracle.schema)
    vectors = units(count, dims)
    points = [
        Point(id_of(n), vectors[n], {"size": n, "lang": ("en", "de")[n % 2]}, f"row w{n} of") for n in range(count)
    ]
    store.upsert(index, points)
    oracle.upsert(index, points)
    return oracle


def code_of(work: Callable[..., object], *arguments: object, **others: object) -> str:
    """The code of the error that a call raises, which has a remedy."""
    with pytest.raises(MainspringError) as caught:
        work(*arguments, **others)
    assert caught.value.fix
    return caught.value.code


def ids_of(found: Hits) -> list[str]:
    """The ids of what was found, in order."""
    return [hit.id for hit in found.hits]
