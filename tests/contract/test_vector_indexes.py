"""Vector indexes against brute force: whatever arrives, dies or changes, they answer as the online rows do."""

import itertools
import math
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.adapters.lmdb.online_store import open_store as open_online
from mainspring.adapters.lmdb.settings import LmdbSettings
from mainspring.adapters.pgvector.settings import PgvectorSettings
from mainspring.adapters.pgvector.vector_store import open_store as open_pgvector
from mainspring.adapters.qdrant_edge.settings import QdrantEdgeSettings
from mainspring.adapters.qdrant_edge.vector_store import open_store as open_edge
from mainspring.declare.aggregate import count, last
from mainspring.declare.app import App
from mainspring.declare.data import Entity
from mainspring.declare.record import Field, Record
from mainspring.errors import DataError, ServiceError, UsageError
from mainspring.features.logs.log import newest, source_of
from mainspring.features.logs.write import append_rows
from mainspring.features.online.write import upsert
from mainspring.features.vector_index import follow as following
from mainspring.features.vector_index.follow import KEEP_US, TOUCH_US, follow, is_behind, reaches
from mainspring.features.vector_index.mark import read_mark
from mainspring.features.vector_index.search import NearestRequest, VectorIndexSearcher
from mainspring.features.vector_index.shape import vector_index_shape
from mainspring.features.view import view_of

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
TTL = 500
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
VALUES = ("tint", "price", "sold", "seen")


class Item(Record):
    shop: int
    item: str
    image: list[float] | None = Field(length=3)
    tint: str | None
    price: float | None
    sold: bool | None
    seen: datetime | None
    at: datetime
    until: datetime | None
    gone: bool | None


app = App("test")
items = app.source(Item, time="at", valid_to="until", deleted="gone", called="items")
SOURCE = source_of(items)
FEATURES = {name: last(name) for name in ("image", *VALUES)}
WHOSE = (Entity("shop"), Entity("item"))
plain = app.features(items, entity=WHOSE, called="plain", **FEATURES)
aging = app.features(items, entity=WHOSE, ttl=f"{TTL}s", called="aging", **FEATURES)
windowed = app.features(items, entity=WHOSE, n=count("10m"), called="windowed", **FEATURES)
VIEWS = {declared: view_of(declared, number) for number, declared in enumerate((plain, aging, windowed), 1)}
FILTERS = ("shop", *VALUES)


def shape_of(declared, metric="cosine", filters=FILTERS, name="near"):
    index = app.vector_index(declared.image, filters=list(filters), metric=metric, called=name)
    return vector_index_shape(index, VIEWS[declared], "0123abcd", SOURCE)


class DiedError(Exception):
    pass


class Mortal:
    """A store whose process dies at its n-th change."""

    def __init__(self, store, left):
        self._store, self._left = store, left

    def __getattr__(self, name):
        method = getattr(self._store, name)
        if name not in ("create", "upsert", "delete", "flush", "drop", "swap", "optimize"):
            return method

        def call(*arguments, **named):
            self._left[0] -= 1
            if self._left[0] < 0:
                raise DiedError
            return method(*arguments, **named)

        return call


class Shop:
    """A source, its views and an index, beside a list of all rows that ever came."""

    def __init__(self, place, vectors, shape):
        self.place, self._opening = place, vectors
        self.now = START
        self.shape = shape
        self.rows = []
        self.open()
        self.stores.tables = open_tables(DeltaSettings(), place / "tables")

    def open(self):
        self.stores = SimpleNamespace(
            tables=open_tables(DeltaSettings(), self.place / "tables"),
            online=open_online(LmdbSettings(map_size=1 << 24), self.place / "online"),
            vectors=self._opening(),
        )

    def close(self):
        self.stores.online.close()
        self.stores.vectors.close()

    def clock(self):
        return self.now

    def push(self, *given, online=True):
        """Rows (shop, item, vector, tint, price, sold, seconds from now, seconds valid or None, gone)."""
        table = pa.Table.from_pylist(
            [
                {
                    "shop": shop,
                    "item": item,
                    "image": vector,
                    "tint": tint,
                    "price": price,
                    "sold": sold,
                    "seen": moment(self.now),
                    "at": moment(self.now + after * SECOND),
                    "until": None if valid is None else moment(self.now + (after + valid) * SECOND),
                    "gone": gone,
                }
                for shop, item, vector, tint, price, sold, after, valid, gone in given
            ],
            pa.schema(
                [
                    ("shop", pa.int64()),
                    ("item", pa.string()),
                    ("image", pa.list_(pa.float32(), 3)),
                    ("tint", pa.string()),
                    ("price", pa.float64()),
                    ("sold", pa.bool_()),
                    ("seen", pa.timestamp("us", "UTC")),
                    ("at", pa.timestamp("us", "UTC")),
                    ("until", pa.timestamp("us", "UTC")),
                    ("gone", pa.bool_()),
                ]
            ),
        )
        for number, row in enumerate(table.to_pylist()):
            self.rows.append((row, self.now, len(self.rows) + number))
        views = list(VIEWS.values())
        done = append_rows(self.stores, SOURCE, table, self.now, views)
        if online:
            for view in views:
                upsert(view, self.stores.online, done.logged[view.name], self.now)

    def follow(self, **given):
        return follow(self.shape, self.stores, self.clock, **given)

    def search(self, **given):
        return VectorIndexSearcher(self.shape, self.stores, self.clock).search(NearestRequest(**given))

    # -- brute force ---------------------------------------------------------------------------------------------

    def answering(self):
        """The row of each entity that answers now, by rule 1 of the semantics."""
        best = {}
        for row, ingest, seq in self.rows:
            order = (row["at"], ingest, seq)
            key = (row["shop"], row["item"])
            if row["at"] <= moment(self.now) and (key not in best or order > best[key][0]):
                best[key] = (order, row)
        view, found = self.shape.view, {}
        for key, (_, row) in best.items():
            old = view.ttl_us is not None and row["at"] < moment(self.now - view.ttl_us)
            over = not view.windowed and row["until"] is not None and row["until"] <= moment(self.now)
            if not row["gone"] and not old and not over:
                found[key] = row
        return found

    def expected(self, vector, passes=lambda row: True, without=None):
        """Key, score and row of all that could be found, the nearest first."""
        scored = []
        for key, row in self.answering().items():
            other = row["image"]
            if other is None or not np.isfinite(other).all() or key == without or not passes(row):
                continue
            length = math.sqrt(sum(x * x for x in other)) if self.shape.metric == "cosine" else 1.0
            own = math.sqrt(sum(x * x for x in vector)) if self.shape.metric == "cosine" else 1.0
            if length:
                scored.append((sum(x * y for x, y in zip(vector, other, strict=True)) / length / own, key, row))
        return sorted(scored, key=lambda found: -found[0])

    def agree(self, vector, k=50, passes=lambda row: True, filter=None):
        expected = self.expected(vector, passes)
        found = self.search(vector=list(vector), k=k, filter=filter, recall=1.0)
        scores = [hit.score for hit in found.hits]
        assert scores == pytest.approx([score for score, *_ in expected[:k]], abs=1e-6)
        by_key = {key: (score, row) for score, key, row in expected}
        for hit in found.hits:
            score, row = by_key[hit.entity["shop"], hit.entity["item"]]
            assert hit.score == pytest.approx(score, abs=1e-6)
            shown = {name: hit.features[name] for name in ("tint", "price", "sold")}
            assert shown == {name: row[name] for name in shown}
            assert hit.event_us == us(row["at"])
        assert len({tuple(hit.entity.items()) for hit in found.hits}) == len(found.hits)
        assert found.complete == (len(expected) >= k)
        assert [note.code for note in found.notes] == ([] if found.complete else ["fewer_than_k"])


def moment(at_us):
    return EPOCH + timedelta(microseconds=at_us)


def us(at):
    return (at - EPOCH) // timedelta(microseconds=1)


NUMBERS = itertools.count()


@pytest.fixture(params=["qdrant_edge", "pgvector"])
def opening(request):
    """Makes what opens a vector store in a place, again and again."""

    def edge(place):
        return lambda: open_edge(QdrantEdgeSettings(), place)

    def postgres(place):
        url, schema = request.getfixturevalue("postgres_url"), f"nearest_{next(NUMBERS)}"
        return lambda: open_pgvector(PgvectorSettings(url=url, schema=schema), place)

    return {"qdrant_edge": edge, "pgvector": postgres}[request.param]


@pytest.fixture
def shop(opening, tmp_path):
    made = Shop(tmp_path, opening(tmp_path), shape_of(plain))
    yield made
    made.close()


def row(item, vector, after=0, valid=None, gone=False, shop=1, tint="red", price=1.0, sold=None):
    return (shop, item, vector, tint, price, sold, after, valid, gone)


UP, ASIDE, BOTH = [0.0, 0.0, 2.0], [0.0, 3.0, 0.0], [0.0, 1.0, 1.0]

VECTORS = st.one_of(
    st.none(),
    st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]), min_size=3, max_size=3),
    st.just([math.nan, 1.0, 0.0]),
)
ROWS = st.tuples(
    st.integers(1, 2),
    st.sampled_from(["a", "b", "c", "é", "a b"]),
    VECTORS,
    st.sampled_from([None, "red", "blue"]),
    st.sampled_from([None, -1.0, 0.0, 2.5, 7.0]),
    st.sampled_from([None, True, False]),
    st.sampled_from([-700, -300, -10, -10, 0, 0, 0, 5, 40]),
    st.sampled_from([None, None, None, 20, 350]),
    st.sampled_from([False, False, False, None, True]),
)
STEPS = st.one_of(
    st.tuples(st.just("push"), st.lists(ROWS, min_size=1, max_size=4), st.booleans()),
    st.tuples(st.just("follow")),
    st.tuples(st.just("die"), st.integers(0, 12)),
    st.tuples(st.just("wait"), st.sampled_from([1, 7, 60, 400, 4000, 100_000])),
    st.tuples(st.just("restart")),
    st.tuples(st.just("lose"), st.sampled_from(["vectors", "online"])),
    st.tuples(st.just("redefine"), st.sampled_from(["cosine", "dot"]), st.booleans()),
    st.tuples(st.just("ask"), st.integers(0, 3)),
)
FILTERED = [
    (None, lambda row: True),
    ({"eq": ["tint", "red"]}, lambda row: row["tint"] == "red"),
    ({"not": {"range": ["price", {"gte": 0}]}}, lambda row: row["price"] is None or row["price"] < 0),
    (
        {"and": [{"eq": ["shop", 1]}, {"or": [{"eq": ["sold", True]}, {"in": ["tint", ["blue"]]}]}]},
        lambda row: row["shop"] == 1 and (row["sold"] is True or row["tint"] == "blue"),
    ),
]


@given(view=st.sampled_from([plain, aging, windowed]), steps=st.lists(STEPS, min_size=3, max_size=14))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_program_answers_as_brute_force_does(opening, view, steps):
    place = Path(tempfile.mkdtemp(prefix="mainspring-nearest-"))
    shop = Shop(place, opening(place), shape_of(view))
    try:
        for step in steps:
            carry_out(shop, view, step)
        shop.push(row("last", UP))
        shop.follow()
        for filter, passes in FILTERED[: 1 if len(shop.shape.filters) < 5 else 4]:
            for vector in (UP, BOTH, [1.0, -1.0, 0.5]):
                for k in (2, 50):
                    shop.agree(vector, k, passes, filter)
        top = newest(shop.stores.tables, shop.shape.view.log)
        assert reaches(shop.shape, shop.stores, top.through)
        assert shop.follow().entities == 0
    finally:
        shop.close()
        shutil.rmtree(place, ignore_errors=True)


def carry_out(shop, view, step):
    verb, *given = step
    {
        "push": lambda rows, online: shop.push(*(fitting(view, row) for row in rows), online=online),
        "follow": shop.follow,
        "die": lambda left: die(shop, left),
        "wait": lambda seconds: wait(shop, seconds),
        "restart": lambda: restart(shop),
        "lose": lambda what: lose(shop, what),
        "redefine": lambda metric, filtered: redefine(shop, view, metric, filtered),
        "ask": lambda number: asks(shop, number),
    }[verb](*given)


def fitting(view, row):
    """Online, a view with windows does not know of deleted rows, as offline it does: they are left out there."""
    return row if view is not windowed else (*row[:-1], False)


def die(shop, left):
    """Follow until the process dies at one of its writes; another one comes after it."""
    dying = [left]
    stores = SimpleNamespace(
        tables=shop.stores.tables,
        online=Mortal(shop.stores.online, dying),
        vectors=Mortal(shop.stores.vectors, dying),
    )
    try:
        follow(shop.shape, stores, shop.clock)
    except DiedError:
        restart(shop)


def wait(shop, seconds):
    shop.now += seconds * SECOND


def restart(shop):
    shop.close()
    shop.open()


def redefine(shop, view, metric, filtered):
    shop.shape = shape_of(view, metric, FILTERS if filtered else ())


def asks(shop, number):
    if shop.follow() is not None:
        filter, passes = FILTERED[number if len(shop.shape.filters) == 5 else 0]
        shop.agree(BOTH, 3, passes, filter)


def lose(shop, what):
    """A store is emptied behind everybody's back."""
    if what == "vectors":
        for name in shop.stores.vectors.indexes():
            shop.stores.vectors.drop(name)
    else:
        shop.stores.online.drop(b"")


def test_rows_of_the_future_are_found_when_their_time_comes(shop):
    shop.push(row("a", UP), row("a", ASIDE, after=60), row("b", ASIDE, after=90))
    assert shop.follow().entities == 2
    shop.agree(UP)
    top = newest(shop.stores.tables, shop.shape.view.log)
    for seconds in (59, 1, 1, 29, 1, 1000):
        shop.now += seconds * SECOND
        if is_behind(shop.shape, shop.stores, top, shop.now):
            shop.follow()
        shop.agree(UP)
        assert shop.search(vector=ASIDE, k=1).hits[0].score == pytest.approx(
            1.0 if shop.now >= START + 60 * SECOND else 0
        )
    assert not is_behind(shop.shape, shop.stores, top, shop.now)  # nothing lies ahead any more


def test_what_is_old_or_over_is_taken_out_in_time(opening, tmp_path):
    shop = Shop(tmp_path, opening(tmp_path), shape_of(aging))
    shop.push(row("old", UP), row("over", UP, valid=10), row("open", UP))
    shop.follow()
    collection = read_mark(shop.stores.online, shop.shape.prefix, shop.shape.digest)[1].collection
    shop.now += 11 * SECOND
    shop.agree(UP)  # by the moment of the search: the points are there still
    assert shop.stores.vectors.count(collection) == 3
    shop.now += TOUCH_US
    shop.push(row("new", UP))
    shop.follow()
    assert shop.stores.vectors.count(collection) == 1
    shop.agree(UP)
    shop.close()


def test_another_definition_is_built_beside_and_the_old_one_kept_for_a_day(shop):
    shop.push(row("a", UP), row("b", [0.0, 0.0, 9.0]))
    shop.follow()
    old, first = shop.shape, shop.stores.vectors.indexes()
    shop.shape = shape_of(plain, "dot")
    with pytest.raises(ServiceError) as refused:
        shop.search(vector=UP)
    assert refused.value.code == "MS-4189"
    shop.follow()
    assert shop.search(vector=UP, k=1).hits[0].entity["item"] == "b"
    assert len(shop.stores.vectors.indexes()) == 2
    new, shop.shape = shop.shape, old
    shop.agree(UP)  # who goes back finds it built
    shop.shape = new
    shop.now += KEEP_US + TOUCH_US
    shop.push(row("c", UP))
    shop.follow()
    assert len(shop.stores.vectors.indexes()) == 1
    assert shop.stores.vectors.indexes() != first
    other = shape_of(plain, name="other")
    shop.shape = other
    shop.follow()
    assert len(shop.stores.vectors.indexes()) == 2  # another index's are not touched
    shop.agree(UP)


def test_of_two_that_follow_at_once_the_slower_does_it_again(shop):
    """One reads an entity, another one reads and writes what it is next, and the first writes what it has read."""
    shop.push(row("a", UP))
    shop.follow()
    shop.push(row("a", ASIDE))
    quick = [True]

    class Slow(Mortal):
        def __getattr__(self, name):
            method = getattr(self._store, name)
            if name != "upsert" or not quick:
                return method

            def late(*arguments, **named):
                quick.clear()
                shop.push(row("a", BOTH, after=1))
                shop.now += 2 * SECOND
                shop.follow()
                return method(*arguments, **named)

            return late

    slow = SimpleNamespace(
        tables=shop.stores.tables, online=shop.stores.online, vectors=Slow(shop.stores.vectors, [99])
    )
    done = follow(shop.shape, slow, shop.clock)
    assert done.entities == 2  # the same entity twice
    collection = read_mark(shop.stores.online, shop.shape.prefix, shop.shape.digest)[1].collection
    (point,) = shop.stores.vectors.scroll(collection, vectors=True).points
    assert point.vector == pytest.approx([0, math.sqrt(0.5), math.sqrt(0.5)], abs=1e-6)
    shop.agree(BOTH)


def test_a_large_log_is_read_by_parts_and_gone_on_with(shop, monkeypatch):
    monkeypatch.setattr(following, "_ROWS", 10)
    monkeypatch.setattr(following, "_BATCH", 7)
    shop.push(*(row(f"i{number}", [1.0, float(number), 2.0]) for number in range(95)))
    left = [12]
    stores = SimpleNamespace(
        tables=shop.stores.tables,
        online=Mortal(shop.stores.online, left),
        vectors=Mortal(shop.stores.vectors, left),
    )
    with pytest.raises(DiedError):
        follow(shop.shape, stores, shop.clock)
    with pytest.raises(ServiceError):
        shop.search(vector=UP)  # half an index says nothing
    assert 0 < shop.follow().entities < 95
    shop.agree(UP, k=200)
    asked = []
    shop.push(*(row(f"i{number}", UP) for number in range(30)))
    done = shop.follow(stopped=lambda: asked.append(1) or len(asked) > 3)
    assert not done.whole
    assert shop.follow().whole
    shop.agree(UP, k=200)


def test_what_has_no_vector_is_counted(shop):
    shop.push(row("a", None), row("b", [0.0, 0.0, 0.0]), row("c", [math.nan, 0.0, 0.0]), row("d", [1e38, 0.0, 0.0]))
    done = shop.follow()
    assert (done.written, done.removed) == (0, 4)
    assert done.skipped == {"null": 1, "zero": 1, "not_finite": 2}
    answer = shop.search(vector=UP, k=3)
    assert (answer.hits, answer.complete) == ((), False)
    with pytest.raises(UsageError) as refused:
        shop.search(entity={"shop": 1, "item": "c"})
    assert refused.value.code == "MS-2452"
    with pytest.raises(DataError):
        shop.search(entity={"shop": "1", "item": "c"})


def test_an_entity_is_no_hit_of_its_own(shop):
    shop.push(row("a", UP), row("b", UP, shop=2), row("c", BOTH), row("d", ASIDE))
    shop.follow()
    found = shop.search(entity={"shop": 1, "item": "a"}, k=2)
    assert [hit.entity for hit in found.hits] == [{"shop": 2, "item": "b"}, {"shop": 1, "item": "c"}]
    within = shop.search(entity={"shop": 1, "item": "a"}, k=3, filter={"eq": ["shop", 1]})
    assert [hit.entity["item"] for hit in within.hits] == ["c", "d"]
    assert not within.complete


def test_answers_are_what_the_online_store_says_although_the_index_is_behind(shop):
    shop.push(*(row(f"i{number}", [1.0, number / 10, 0.0]) for number in range(30)))
    shop.follow()
    shop.push(*(row(f"i{number}", UP) for number in range(6)), row("i6", None, gone=True), row("i7", [1.0, 0.0, 0.0]))
    shop.push(row("i8", [1.0, 0.8, 0.0], tint="blue"))
    found = shop.search(vector=[1.0, 0.0, 0.0], k=5, recall=1.0, filter={"eq": ["tint", "red"]})
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
    assert [hit.entity["item"] for hit in found.hits] == ["i7", "i9", "i10", "i11", "i12"]
    assert scores[0] == pytest.approx(1.0)
