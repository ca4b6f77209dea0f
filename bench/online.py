"""Online reads: one entity x 20 features against a raw LMDB get and msgpack decode; windows; materialisation.

Bar: one read of 20 features <= 2.5x the raw get + decode, in paired rounds.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import lmdb
import msgspec
import numpy as np
import pyarrow as pa

from mainspring.adapters.lmdb.online_store import LmdbStore
from mainspring.declare.aggregate import Aggregate, Function
from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.features.online.keys import key_packer
from mainspring.features.online.plan import compile_plan
from mainspring.features.online.write import upsert
from mainspring.features.view import FeatureDef, View, log_schema, pick

ENTITIES, FEATURES, ROUNDS, READS = 10_000, 20, 7, 5_000
NOW = 1_700_000_000_000_000
FLOAT = ColumnType(Kind.FLOAT, nullable=True)


def view(windows: bool) -> View:
    columns = tuple(FieldSpec(f"c{i}", FLOAT) for i in range(3 if windows else FEATURES))
    if windows:
        features = tuple(
            FeatureDef(f"f{i}{j}", Aggregate(Function.AVG, c.name, span), FLOAT)
            for i, c in enumerate(columns)
            for j, span in enumerate((3_600_000_000, 86_400_000_000))
        )
    else:
        features = tuple(
            FeatureDef(f"f{i}", Aggregate(Function.LAST, c.name, None), FLOAT) for i, c in enumerate(columns)
        )
    key = FieldSpec("k", ColumnType(Kind.STRING))
    return View(1 + windows, "v", "1", (key,), None, features, columns, ("s",), "at", "feature_view/v/1")


def rows(of: View, entities: int, each: int, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    count = entities * each
    columns: dict[str, object] = {"k": [f"e{i:06d}" for i in range(entities)] * each}
    columns |= {field.name: random.normal(size=count) for field in of.columns}
    moment = pa.timestamp("us", "UTC")
    at = pa.array(NOW - random.integers(0, 86_400_000_000, count)).cast(moment)
    system = {
        "_event_time": at,
        "_ingest_time": at,
        "_seq": np.arange(count),
        "_deleted": [False] * count,
        "_assumed": [True] * count,
        "_hash": np.zeros(count, np.int32),
        "_def": [""] * count,
        "_batch": [""] * count,
    }
    system["_retracts"] = pa.nulls(count, pa.int64())
    return pa.table(columns | system).cast(log_schema(of))


def timed(action: Callable[..., object], count: int, *arguments: object) -> float:
    began = time.process_time()
    for _ in range(count):
        action(*arguments)
    return (time.process_time() - began) / count * 1e6


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        store = LmdbStore(Path(folder) / "ours", 1 << 30)
        plain, windowed = view(False), view(True)
        table = rows(plain, ENTITIES, 1)
        began = time.process_time()
        upsert(plain, store, table, time.time_ns() // 1000)
        seconds = time.process_time() - began
        upsert(windowed, store, rows(windowed, 50, 350), time.time_ns() // 1000)
        raw = lmdb.open(str(Path(folder) / "raw"), map_size=1 << 28)
        encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode
        pack = key_packer(plain.id, plain.keys)
        values = [column.to_pylist() for column in table.select([c.name for c in plain.columns]).columns]
        bodies = list(zip(*values, strict=True))
        began = time.process_time()
        with raw.begin(write=True) as transaction:
            for number, body in enumerate(bodies):
                transaction.put(pack({"k": f"e{number:06d}"}), encode(body))
        floor = time.process_time() - began
        plan = compile_plan(store, [pick(plain)])
        windows = compile_plan(store, [pick(windowed)])
        keys = {"k": "e000042"}
        packed = pack(keys)

        def by_hand() -> object:
            with raw.begin() as transaction:
                return decode(transaction.get(packed))

        rounds = [(timed(plan.read_one, READS, keys, NOW), timed(by_hand, READS)) for _ in range(ROUNDS)]
        ours, theirs = (statistics.median(side) for side in zip(*rounds, strict=True))
        ratio = statistics.median(a / b for a, b in rounds)
        many = [{"k": f"e{i:06d}"} for i in range(100)]
        print(f"{datetime.now(UTC):%Y-%m-%d}  CPU us a read, median of {ROUNDS} paired rounds of {READS}")
        print(f"1 x {FEATURES}: read plan {ours:.2f}, LMDB get + decode by hand {theirs:.2f}: {ratio:.2f}x (bar 2.5x)")
        print(f"100 x {FEATURES}: {timed(plan.read_many, 200, many, [NOW] * 100):.0f}")
        print(f"1 x 6 windows over about 350 rows: {timed(windows.read_one, 2000, {'k': 'e000007'}, NOW):.1f}")
        print(
            f"upsert of {ENTITIES:,} rows: {ENTITIES / seconds:,.0f} rows/s; "
            f"encode + put by hand {ENTITIES / floor:,.0f}: {seconds / floor:.1f}x"
        )
        raw.close()
        store.close()
        return int(ratio > 2.5)


if __name__ == "__main__":
    sys.exit(main())
