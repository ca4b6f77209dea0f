"""What the offline tests share: views, logs on disk, spines on a coarse grid."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from mainspring.declare.aggregate import Aggregate
from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.features.view import FeatureDef, View, log_schema
from mainspring.ports.tables import Limits
from unit.features.offline.oracle import Row

MINUTE = 60_000_000
GRID = 10 * MINUTE
ACUTE = ("é", "e\u0301")  # one letter, two spellings: different keys
KINDS = {"x": Kind.FLOAT, "n": Kind.INTEGER, "s": Kind.STRING}


def a_view(features: dict[str, Aggregate], *, keys=("k",), ttl=None, has_valid_to=False, versioned=False) -> View:
    columns = tuple(FieldSpec(name, ColumnType(kind, True)) for name, kind in KINDS.items())
    types = {field.name: field.type for field in columns}
    defs = tuple(
        FeatureDef(name, what, what.result_type(None if what.column is None else types[what.column]))
        for name, what in features.items()
    )
    return View(
        id=1,
        name="v",
        version="0" * 32,
        keys=tuple(FieldSpec(key, ColumnType(Kind.STRING)) for key in keys),
        ttl_us=ttl,
        features=defs,
        columns=columns,
        sources=("s",),
        time="at",
        log="feature_view/v/0",
        has_valid_to=has_valid_to,
        version_id=ColumnType(Kind.STRING, True) if versioned else None,
    )


def log_table(view: View, rows: list[Row]) -> pa.Table:
    schema = log_schema(view)
    columns = {name: [] for name in schema.names}
    for row in rows:
        parts = row.key if isinstance(row.key, tuple) else (row.key,)
        values = dict(zip(view.key_names, parts, strict=True)) | row.values
        values |= {"_event_time": row.event, "_ingest_time": row.ingest, "_seq": row.seq, "_deleted": row.deleted}
        values |= {
            "_retracts": row.retracts,
            "_assumed": False,
            "_hash": 0,
            "_def": "",
            "_batch": "",
            "_valid_to": row.valid_to,
            "_id": row.id,
        }
        for name in schema.names:
            columns[name].append(values.get(name))
    return pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names}, schema=schema)


class Folder:
    """As much of a table store as reading a log takes: Parquet files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def write(self, *tables: pa.Table) -> None:
        for old in self.folder.glob("*.parquet"):
            old.unlink()
        for table in tables:
            if len(table):
                self.count += 1
                pq.write_table(table, self.folder / f"{self.count}.parquet")

    def commits(self, table: str, limit: int | None = None) -> tuple[()]:
        return ()

    limits = Limits()

    def files(self, table: str, version: int | None = None) -> tuple[str, ...]:
        return tuple(sorted(str(path) for path in self.folder.glob("*.parquet")))


floats = st.one_of(st.none(), st.integers(-50, 50).map(float), st.sampled_from([0.1, -2.5, 1e6, 3.25]))
keys = st.sampled_from(["a", "b", *ACUTE])
moments = st.integers(0, 24)


@st.composite
def logs(draw, *, most=30, versioned=False, deletions=True, specials=False):
    """Rows on a ten-minute grid, with ties, late rows, corrections, nulls and tombstones."""
    count = draw(st.integers(0, most))
    numbers = st.one_of(floats, st.sampled_from([float("nan"), float("inf"), float("-inf")])) if specials else floats
    seqs = draw(st.permutations(range(count)))
    rows = []
    for index in range(count):
        event = draw(moments) * GRID
        late = draw(st.sampled_from([0, 0, 0, GRID, 3 * GRID, -GRID]))
        rows.append(
            Row(
                draw(keys),
                event,
                event + late,
                seqs[index],
                {
                    "x": draw(numbers),
                    "n": draw(st.one_of(st.none(), st.integers(-9, 9), st.just(2**53 + 1))),
                    "s": draw(st.one_of(st.none(), st.sampled_from(["", "p", "q", *ACUTE]))),
                },
                deleted=deletions and draw(st.integers(0, 9)) == 0,
                valid_to=draw(
                    st.one_of(st.none(), st.integers(0, 6).map(lambda more, event=event: event + more * GRID))
                ),
                id=draw(st.sampled_from(["i", "j", "k", None])) if versioned else None,
            )
        )
    return rows


@st.composite
def spines(draw, *, most=25):
    """Moments on the same grid, so that they meet events, and half-way between; keys unknown and null too."""
    count = draw(st.integers(0, most))
    row = st.tuples(
        st.one_of(keys, keys, keys, st.sampled_from(["zz", None])),
        st.integers(-2, 60).map(lambda half: half * GRID // 2),
    )
    return draw(st.lists(row, min_size=count, max_size=count))


def spine_table(questions) -> pa.Table:
    return pa.table(
        {
            "note": pa.array(range(len(questions)), pa.int16()),
            "k": pa.array([key for key, _ in questions], pa.string()),
            "at": pa.array([t for _, t in questions], pa.timestamp("us", "UTC")),
        }
    )


def without(rows, **change):
    return [dataclasses.replace(row, **change) for row in rows]
