"""One busy entity online: what a read and a push cost while its windows hold more and more rows.

    python bench/busy.py
    python bench/busy.py --most 1000000

Bar: from 20,000 rows on, ten times the rows make a read and a push at most 4 x as dear (groups of chunks come in once),
and no stored value is over 1 MB.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import msgspec
import pyarrow as pa
from online import FLOAT, NOW, rows, timed

from mainspring import avg, count, distinct, first, highest, last, last_n, lowest, quantile, stddev, total
from mainspring.adapters.lmdb.online_store import LmdbStore
from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.features.online.plan import compile_plan
from mainspring.features.online.write import upsert
from mainspring.features.view import FeatureDef, View, pick

SUMS = {
    "visits": count("1h"),
    "sum": total("c0", "1d"),
    "mean": avg("c0", "7d"),
    "spread": stddev("c1", "1d"),
    "least": lowest("c0", "1h"),
    "most": highest("c1", "7d"),
    "newest": last("c0", "1d"),
    "oldest": first("c0", "7d"),
    "five": last_n("c1", 5, "1d"),
}
SKETCHES = {"kinds": distinct("c0", "7d"), "ninth": quantile("c1", 0.9, "7d")}
REPEATS = 50
BAR, LARGEST = 4.0, 1_000_000


def a_view(features) -> View:
    columns = (FieldSpec("c0", FLOAT), FieldSpec("c1", FLOAT))
    types = {column.name: column.type for column in columns}
    made = tuple(FeatureDef(name, what, what.result_type(types.get(what.column))) for name, what in features.items())
    key = FieldSpec("k", ColumnType(Kind.STRING))
    return View(len(features), "v", "1", (key,), None, made, columns, ("s",), "at", "feature_view/v/1")


def measure(view: View, size: int) -> tuple[float, float, float, int]:
    """Microseconds of a read, a push and a late push; bytes of the largest value."""
    with tempfile.TemporaryDirectory() as folder:
        store = LmdbStore(Path(folder) / "store", 1 << 31)
        upsert(view, store, rows(view, 1, size), NOW)
        plan = compile_plan(store, [pick(view)])
        one, pushed = rows(view, 1, 1, seed=1), [10**9]

        def push(at_us: int | None) -> None:
            pushed[0] += 1
            row = one.set_column(one.column_names.index("_seq"), "_seq", pa.array([pushed[0]]))
            if at_us is not None:
                at = pa.array([at_us + pushed[0] - 10**9], pa.timestamp("us", "UTC"))
                row = row.set_column(row.column_names.index("_event_time"), row.schema.field("_event_time"), at)
            upsert(view, store, row, NOW)

        read = timed(plan.read_one, REPEATS, {"k": "e000000"}, NOW)
        newest, late = timed(push, REPEATS, NOW - REPEATS - 1), timed(push, REPEATS, None)
        largest = max(len(value) for _, value in store.scan(b""))
        store.close()
        return read, newest, late, largest


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int, default=200_000)
    most = parser.parse_args().most
    good = True
    for name, features in (("sums, extremes, rows", SUMS), ("with distinct and quantile", SUMS | SKETCHES)):
        view, found = a_view(features), []
        for size in (size for size in (2_000, 20_000, 200_000, 1_000_000) if size <= most):
            began = time.process_time()
            read, push, late, largest = measure(msgspec.structs.replace(view), size)
            spent = time.process_time() - began
            print(
                f"{name}, {size:>9,} rows: read {read:6,.0f} us, push {push:6,.0f} us, late push {late:6,.0f} us, "
                f"largest value {largest:,} B ({spent:.1f} s)"
            )
            good = good and largest <= LARGEST
            if size >= 20_000:
                found.append((read, push, late))
        ratios = [new / old for before, after in pairwise(found) for old, new in zip(before, after, strict=True)]
        good = good and max(ratios, default=1.0) <= BAR
        print(f"{name}: at most {max(ratios, default=1.0):.1f} x for the next size (bar {BAR:g})")
    print("met" if good else "NOT met")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
