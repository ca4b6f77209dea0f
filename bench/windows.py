"""Nine windows over an even and a hot log: the planner's choice beside each kernel forced, the same answers.

    python bench/windows.py                                   100k moments x 1M rows
    python bench/windows.py --rows 10000000 --moments 1000000

Bar: CPU time of the choice <= 1.3 x that of the best kernel, on the even log and on the hot one, where half of the
moments and a third of the rows are one entity's. Whole numbers agree exactly, floats to 1e-9. A kernel that would write
out more pairs (moment, row) than ``--patience`` is not run: it is not the best one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from datetime import datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
from point_in_time import SPAN, START, line, measured

from mainspring import (
    App,
    Entity,
    Frame,
    Record,
    avg,
    count,
    distinct,
    highest,
    last_n,
    lowest,
    quantile,
    stddev,
    total,
)
from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.features.logs.ingest import prepare_rows
from mainspring.features.logs.log import source_of
from mainspring.features.logs.project import update_view
from mainspring.features.logs.write import ingest_batch
from mainspring.features.offline.history import KERNELS, history
from mainspring.features.view import view_of
from mainspring.features.windows import question

BAR = 1.3


class Row(Record):
    user: str
    x: float | None
    n: int
    place: int
    happened: datetime


def an_app():
    app = App("bench")
    rows = app.source(Row, time="happened", called="rows")
    features = {
        "visits": count("1h"),
        "sum": total("n", "1d"),
        "mean": avg("x", "7d"),
        "spread": stddev("x", "1d"),
        "least": lowest("x", "1h"),
        "most": highest("n", "7d"),
        "newest": last_n("x", 5, "1d"),
        "places": distinct("place", "7d"),
        "ninth": quantile("x", 0.9, "1d"),
    }
    return source_of(rows), view_of(app.features(rows, entity=Entity("user"), called="windows", **features))


def data(rows: int, entities: int, hot: float, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    users = pa.array([f"user{index:07d}" for index in range(entities)])
    picked = np.where(rng.random(rows) < hot, 0, rng.integers(0, entities, rows))
    return pa.table(
        {
            "user": users.take(pa.array(picked)),
            "x": pa.array(rng.lognormal(size=rows), mask=rng.random(rows) < 0.05),
            "n": pa.array(rng.integers(0, 1000, rows)),
            "place": pa.array(rng.integers(0, 300, rows)),
            "happened": pa.array(np.sort(rng.integers(0, SPAN, rows)) + START, pa.timestamp("us", "UTC")),
        }
    )


def moments(count_: int, entities: int, hot: float, seed: int) -> Frame:
    rng = np.random.default_rng(seed + 1)
    picked = np.where(rng.random(count_) < hot, 0, rng.integers(0, entities, count_))
    return Frame(
        pa.table(
            {
                "user": pa.array([f"user{index:07d}" for index in picked]),
                "at": pa.array(rng.integers(0, SPAN, count_) + START, pa.timestamp("us", "UTC")),
            }
        )
    )


def answered(services, view, spine):
    return history(services, [view], spine).arrow()


def agree(one: pa.Table, other: pa.Table) -> bool:
    for name in one.column_names:
        mine, theirs = one.column(name).combine_chunks(), other.column(name).combine_chunks()
        if pa.types.is_floating(mine.type):
            pairs = (np.asarray(side.fill_null(-1e300)) for side in (mine, theirs))
            if not np.allclose(*pairs, rtol=1e-9, atol=1e-12, equal_nan=True):
                return False
        elif not mine.equals(theirs):
            return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--moments", type=int, default=100_000)
    parser.add_argument("--entities", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=int, default=300_000_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    good = True
    for name, hot_rows, hot_moments in (("even", 0.0, 0.0), ("hot", 0.33, 0.5)):
        with tempfile.TemporaryDirectory() as place:
            source, view = an_app()
            services = SimpleNamespace(tables=open_tables(DeltaSettings(), Path(place)))
            prepared = prepare_rows(source, data(asked.rows, asked.entities, hot_rows, asked.seed))
            at = ingest_batch(services.tables, source, prepared, content="bench", now_us=START)
            update_view(services.tables, view, source, at)
            spine = moments(asked.moments, asked.entities, hot_moments, asked.seed)
            pairs = asked.moments * asked.rows * 7 / 30 * (hot_rows * hot_moments + (1 - hot_rows) / asked.entities)
            found: dict[str, list[tuple[float, float]]] = {}
            answers = {}
            answered(services, view, spine)  # warms caches and imports
            for _ in range(asked.rounds):
                for kernel, worth in (("chosen", question._WORTH), ("ranges", 1e18), ("prefix", -1)):
                    if kernel == "ranges" and pairs > asked.patience:
                        continue
                    kept, question._WORTH = question._WORTH, worth
                    try:
                        answer, wall, spent = measured(partial(answered, services, view, spine))
                    finally:
                        question._WORTH = kept
                    found.setdefault(kernel, []).append((wall, spent))
                    answers[kernel] = answer
            for kernel, runs in found.items():
                used = json.loads(answers[kernel].schema.metadata[KERNELS])["windows"]
                line(f"{name}: {kernel}", [run[0] for run in runs], [run[1] for run in runs], used)
            if "ranges" not in found:
                print(f"{name}: ranges not run: about {pairs:.1e} pairs")
            same = all(agree(answers["chosen"], other) for other in answers.values())
            spent = {kernel: statistics.median(run[1] for run in runs) for kernel, runs in found.items()}
            ratio = spent.pop("chosen") / min(spent.values())
            print(f"{name}: chosen / best {ratio:.2f} (bar {BAR}), answers {'agree' if same else 'DIFFER'}")
            good = good and same and ratio <= BAR
    print("met" if good else "NOT met")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
