"""Materialisation in batches: the same bytes as in one step, and a run that was killed goes on where it was."""

import os
import random
import subprocess
import sys
import threading
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.adapters.lmdb.online_store import open_store
from mainspring.adapters.lmdb.settings import LmdbSettings
from mainspring.declare.aggregate import avg, count, distinct, last, last_n
from mainspring.declare.app import App
from mainspring.declare.data import Entity
from mainspring.declare.record import Field, Record
from mainspring.errors import StoreError
from mainspring.features.logs.ingest import prepare_rows
from mainspring.features.logs.log import newest, source_of
from mainspring.features.logs.project import update_view
from mainspring.features.logs.write import ingest_batch
from mainspring.features.online import materialise as materialising
from mainspring.features.online import stream
from mainspring.features.online.keys import view_prefix
from mainspring.features.online.materialise import follow, materialise, reaches
from mainspring.features.online.watermark import mark_key, read_mark
from mainspring.features.view import SEQ, view_of

SECOND = 1_000_000
START = 1_600_000_000 * SECOND
NOW = START + 5_000 * SECOND
MOMENT = pa.timestamp("us", "UTC")
HERE = Path(__file__).resolve()
MOST = 32
"""Entities of a batch of `batches`: what is left of the one before, and sixteen rows more."""


class Visit(Record):
    shop: str
    part: int
    amount: float | None
    note: str | None
    gone: bool
    at: datetime


app = App("test")
visits = app.source(Visit, time="at", deleted="gone", called="visits")
place = (Entity("shop"), Entity("part"))
SOURCE = source_of(visits)
VIEWS = (
    view_of(app.features(visits, entity=place, called="newest", amount=last("amount"), note=last("note")), 1),
    view_of(
        app.features(
            visits,
            entity=place,
            called="windows",
            n=count("20m"),
            mean=avg("amount", "20m"),
            kinds=distinct("note", "20m"),
            notes=last_n("note", 3, "1h"),
            amount=last("amount"),
        ),
        2,
    ),
)


def drawn(seed, size, first=0):
    """Visits of 60 places, some deleted, some of the future, with ties of time."""
    choose = random.Random(seed)
    rows = [
        {
            "shop": f"é{choose.randrange(6)}",
            "part": choose.randrange(10),
            "amount": choose.choice([None, choose.random()]),
            "note": choose.choice([None, "p", "q", "r"]),
            "gone": choose.random() < 0.1,
            "at": START + choose.randrange(first, 600) * 10 * SECOND,
        }
        for _ in range(size)
    ]
    kinds = {"shop": pa.string(), "part": pa.int64(), "amount": pa.float64(), "note": pa.string(), "gone": pa.bool_()}
    return pa.table({name: pa.array([row[name] for row in rows], kinds.get(name, MOMENT)) for name in rows[0]})


def open_all(folder):
    tables = open_tables(DeltaSettings(), folder / "tables")
    return tables, open_store(LmdbSettings(map_size=1 << 26), folder / "online")


def read_files(tables, rows, number):
    """The source is these rows now: what it held before and holds no more is taken away."""
    at = ingest_batch(tables, SOURCE, prepare_rows(SOURCE, rows), content=str(number), now_us=NOW)
    for view in VIEWS:
        update_view(tables, view, SOURCE, at)


def bring(view, tables, store, **words):
    return materialise(view, tables, store, now_us=NOW, source=SOURCE, **words)


def held(store, view):
    return dict(store.scan(view_prefix(view.id)))


@pytest.fixture
def batches(monkeypatch):
    """Batches of a few rows, whatever the log's size."""
    monkeypatch.setattr(materialising, "_AT_ONCE", -1)
    monkeypatch.setattr(stream, "_BATCH", 16)


@pytest.fixture
def project(tmp_path):
    tables, store = open_all(tmp_path)
    yield tables, store
    store.close()


def at_once(tmp_path, tables, view, name="whole"):
    """What a store holds to which the whole log was brought in one step, from nothing."""
    store = open_store(LmdbSettings(map_size=1 << 26), tmp_path / name)
    with pytest.MonkeyPatch.context() as once:
        once.setattr(materialising, "_AT_ONCE", 1 << 40)
        materialise(view, tables, store, now_us=NOW, source=SOURCE)
    found = held(store, view)
    store.close()
    return found


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_batches_write_what_one_step_writes(project, tmp_path, monkeypatch, view):
    tables, store = project
    rows = drawn(1, 400)
    for number, (kept, more) in enumerate(((400, 0), (300, 50), (300, 0), (0, 200)), 1):
        rows = (
            pa.concat_tables([rows.slice(len(rows) - kept), drawn(number + 10, more)]) if more else rows.slice(0, kept)
        )
        read_files(tables, rows, number)
        with monkeypatch.context() as few:
            few.setattr(materialising, "_AT_ONCE", -1)
            few.setattr(stream, "_BATCH", 16)
            done = bring(view, tables, store)
        assert done.through == newest(tables, view.log).through
        assert reaches(view, tables, store, done.through)
        assert held(store, view) == at_once(tmp_path, tables, view, f"whole{number}")
        assert bring(view, tables, store).entities == 0, "nothing is left to do"
    assert bring(view, tables, store, full=True).entities > 0
    assert held(store, view) == at_once(tmp_path, tables, view, "anew")


class Kinds(Record):
    day: date
    price: Decimal = Field(precision=12, scale=2)
    raw: bytes
    share: float | None
    open: bool | None
    seen: datetime | None
    born: date | None
    cost: Decimal | None = Field(precision=20, scale=4)
    image: list[float] | None = Field(length=3)
    until: datetime | None
    at: datetime


kinds = app.source(Kinds, time="at", valid_to="until", called="kinds")
KEYS = (Entity("day"), Entity("price"), Entity("raw"))
VALUES = ("share", "open", "seen", "born", "cost", "image")
KINDS = view_of(app.features(kinds, entity=KEYS, called="kinds_view", **{name: last(name) for name in VALUES}), 3)


def test_every_type_comes_through_batches_as_it_does_in_one_step(project, tmp_path, batches):
    tables, store = project
    choose = random.Random(11)

    def perhaps(value):
        return choose.choice([value, None])

    rows = [
        {
            "day": date(1960 + number % 7, 1, 2),
            "price": Decimal(number % 3) - Decimal("1.25"),
            "raw": bytes([0, number % 4]),
            "share": perhaps(choose.choice([0.1, float("nan"), -0.0])),
            "open": perhaps(number % 2 == 0),
            "seen": perhaps(START + number),
            "born": perhaps(date(1900, 2, 28)),
            "cost": perhaps(Decimal("1234567890123456.7891")),
            "image": perhaps([0.5, -1.5, number]),
            "until": perhaps(START + 9_000 * SECOND),
            "at": START + number * SECOND,
        }
        for number in range(300)
    ]
    typed = {"seen": MOMENT, "until": MOMENT, "at": MOMENT, "cost": pa.decimal128(20, 4), "price": pa.decimal128(12, 2)}
    typed |= {"image": pa.list_(pa.float32()), "raw": pa.binary()}
    table = pa.table({name: pa.array([row[name] for row in rows], typed.get(name)) for name in rows[0]})
    source = source_of(kinds)
    at = ingest_batch(tables, source, prepare_rows(source, table), content="1", now_us=NOW)
    update_view(tables, KINDS, source, at)
    done = materialise(KINDS, tables, store, now_us=NOW)
    assert done.entities == 84
    batched = held(store, KINDS)
    assert batched == at_once(tmp_path, tables, KINDS)
    assert len(batched) == 84


class Stopping:
    """A store of which a write fails, as if the process had ended there, and which remembers what was written."""

    def __init__(self, store, allowed, at):
        self._store, self._allowed, self._at = store, allowed, at
        self.written = []

    def __getattr__(self, name):
        return getattr(self._store, name)

    def _count(self, name):
        if name == self._at:
            self._allowed -= 1
            if self._allowed < 0:
                raise KeyboardInterrupt

    def put_newer(self, rows):
        rows = list(rows)
        self._count("put_newer")
        self.written += [key for key, _ in rows]
        return self._store.put_newer(rows)

    def swap(self, key, old, new):
        if key.startswith(b"\xff\xff\xff\xff"):
            self._count("mark")
        else:
            self.written.append(key)
        return self._store.swap(key, old, new)

    def drop(self, prefix):
        dropped = self._store.drop(prefix)
        self._count("drop")
        return dropped


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
@pytest.mark.parametrize("appended", [False, True])
def test_a_run_that_ended_early_goes_on_with_the_entities_it_had_not_reached(
    project, tmp_path, batches, view, appended
):
    tables, store = project
    read_files(tables, drawn(2, 400), 1)
    wanted = at_once(tmp_path, tables, view)
    first = Stopping(store, 4, "mark")
    with pytest.raises(KeyboardInterrupt):
        bring(view, tables, first)
    mark = read_mark(store.get_many([mark_key(view.id)])[0], tables.mark(view.log, "made") or 0)
    assert (mark.through, mark.progress.to) == (-1, newest(tables, view.log).through)
    assert not reaches(view, tables, store, 0), "a part is not the whole"
    assert 0 < len(held(store, view)) < len(wanted)
    if appended:  # comes after what was begun
        read_files(tables, pa.concat_tables([drawn(2, 400), drawn(3, 30)]), 2)
    second = Stopping(store, 1000, "mark")
    bring(view, tables, second)
    assert held(store, view) == at_once(tmp_path, tables, view, "more")
    if not appended:
        assert len(set(first.written) & set(second.written)) <= MOST, "only the batch that was cut short is repeated"


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
@pytest.mark.parametrize("point", ["drop", "put_newer", "mark"])
def test_rows_that_were_dropped_to_be_made_anew_are_made_anew_by_whoever_comes_next(
    project, tmp_path, batches, view, point
):
    tables, store = project
    read_files(tables, drawn(4, 200), 1)
    through = bring(view, tables, store).through
    wanted = held(store, view)
    stopping = Stopping(store, 1 if point == "mark" else 0, point)
    try:
        bring(view, tables, stopping, full=True)
    except KeyboardInterrupt:
        assert not reaches(view, tables, store, through)
    else:
        assert view.windowed, "window rows are put in by swaps"
    bring(view, tables, store)
    assert held(store, view) == wanted == at_once(tmp_path, tables, view)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_rows_that_follow_one_under_way_do_not_hide_what_is_left(project, tmp_path, batches, view):
    tables, store = project
    read_files(tables, drawn(5, 300), 1)
    with pytest.raises(KeyboardInterrupt):
        bring(view, tables, Stopping(store, 3, "mark"))
    before = newest(tables, view.log).through
    read_files(tables, pa.concat_tables([drawn(5, 300), drawn(6, 20, first=400)]), 2)
    rows = tables.read(view.log, where=[(SEQ, ">", before)])
    through = newest(tables, view.log).through
    follow(view, tables, store, before, rows, through, now_us=NOW, source=SOURCE)
    assert reaches(view, tables, store, through)
    assert held(store, view) == at_once(tmp_path, tables, view)


def test_who_comes_while_another_is_at_it_waits_and_finds_it_done(project, batches):
    """Trap: two materialisations."""
    tables, store = project
    read_files(tables, drawn(7, 300), 1)
    found = []
    with tables.writing(f"online/{VIEWS[0].id}"):
        waiting = [threading.Thread(target=lambda: found.append(bring(VIEWS[0], tables, store))) for _ in range(2)]
        for one in waiting:
            one.start()
        assert held(store, VIEWS[0]) == {}, "one process at a time is at a view"
    for one in waiting:
        one.join(60)
    assert sorted(done.entities > 0 for done in found) == [False, True]


def test_rows_that_cannot_be_laid_aside_are_told_with_a_remedy(project, batches):
    tables, store = project
    read_files(tables, drawn(7, 100), 1)
    place = tables.beside(".spill")
    place.write_text("a file in the folder's place")
    with pytest.raises(StoreError) as raised:
        bring(VIEWS[0], tables, store)
    assert raised.value.code == "MS-4307"
    place.unlink()
    assert bring(VIEWS[0], tables, store).entities > 0
    assert list(place.iterdir()) == [], "nothing is left beside the tables"


def test_kill_9_at_any_write_loses_nothing_and_repeats_one_batch_at_most(tmp_path):
    tables, store = open_all(tmp_path)
    read_files(tables, drawn(8, 500), 1)
    store.close()
    written = {view.name: [] for view in VIEWS}
    kills, choose = 0, random.Random(9)
    while True:
        done = subprocess.run(
            [sys.executable, str(HERE), str(tmp_path), str(choose.randrange(25, 60))],
            env={**os.environ, "PYTHONPATH": str(HERE.parents[3])},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode in (0, -9), done.stderr
        for line in done.stdout.splitlines():
            name, key = line.split()
            written[name].append(key)
        if done.returncode == 0:
            break
        kills += 1
    assert kills >= 3, "the seed kills often enough"
    tables, store = open_all(tmp_path)
    for view in VIEWS:
        found = held(store, view)
        assert found == at_once(tmp_path, tables, view, f"whole{view.id}")
        assert len(written[view.name]) <= len(found) + kills * MOST
    store.close()


class Killing(Stopping):
    """Kills the process instead, at a write of any kind, and prints each row before it is written."""

    def __init__(self, store, allowed):
        super().__init__(store, allowed, "")
        self.view = None

    def _count(self, name):
        self._allowed -= 1
        if self._allowed < 0:
            os.kill(os.getpid(), 9)

    def put_newer(self, rows):
        rows = list(rows)
        self._tell(key for key, _ in rows)
        return super().put_newer(rows)

    def swap(self, key, old, new):
        if key.startswith(b"\xff\xff\xff\xff"):
            self._count("mark")
        else:
            self._tell([key])
            self._count("swap")
        return self._store.swap(key, old, new)

    def _tell(self, keys):
        for key in keys:
            print(self.view.name, key.hex(), flush=True)


def main(folder, allowed):
    """Materialise the views in small batches until a write is one too many."""
    materialising._AT_ONCE, stream._BATCH = -1, 16
    tables, store = open_all(Path(folder))
    killing = Killing(store, int(allowed))
    for view in VIEWS:
        killing.view = view
        materialise(view, tables, killing, now_us=NOW, source=SOURCE)


if __name__ == "__main__":
    main(*sys.argv[1:])
