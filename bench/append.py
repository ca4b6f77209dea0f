"""Pushes and commits of small batches: what the thousandth costs beside the first, and beside an append of delta-rs.

    python bench/append.py [--pushes 1000] [--threads 4]

Both sides take batches of 40 rows for a table that holds 200,000. Ours is the way of a push: the rows are checked,
acknowledged in the write-ahead log (one fsync), and committed each 5,000 rows, which is counted in. Plain delta-rs is
one `write_deltalake` a batch, with a transaction of its own and nothing put together; it syncs nothing to the disk.
Then several threads push at once, and share fsyncs. Last, our own tables take a commit for each batch, which is what
batches of files and of outside sources do: putting files together and old commits away is counted in.

Bars: the last eighth <= 1.5 x the first in CPU, of the commits the last hundred <= 1.5 x the first; CPU over all <= 1.5
x delta-rs; acknowledged in 10 ms (median).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.declare.app import App
from mainspring.declare.record import Field, Record
from mainspring.features.logs.ingest import prepare_rows
from mainspring.features.logs.log import source_of
from mainspring.features.logs.write import ingest_batch
from mainspring.features.wal.commit import commit_waiting, log_of, retire
from mainspring.features.wal.rows import drafted
from mainspring.ports.tables import Txn

ROWS, HELD, COMMIT = 40, 200_000, 5_000
NOW = 1_800_000_000_000_000


class Reading(Record):
    """What is pushed."""

    key: str
    value: float | None = Field(le=1000)
    at: datetime


SOURCE = source_of(App("bench").source(Reading, time="at", called="readings"))


def rows(count: int, start: int) -> pa.Table:
    chance = np.random.default_rng(start)
    moments = NOW - HELD * 1000 + np.arange(start, start + count) * 1000
    return pa.table(
        {
            "key": pa.array([f"k{number % 97}" for number in range(start, start + count)]),
            "value": chance.random(count),
            "at": pa.array(moments).cast(pa.timestamp("us", "UTC")),
        }
    )


class Ours:
    """The way of a push, with the commits that follow."""

    def __init__(self, folder: Path) -> None:
        self.tables = open_tables(DeltaSettings(), folder)
        ingest_batch(self.tables, SOURCE, prepare_rows(SOURCE, rows(HELD, 0)), content="held", now_us=NOW)
        self.log = log_of(self.tables, SOURCE)
        self.acknowledged: list[float] = []

    def acknowledge(self, batch: pa.Table) -> None:
        began = time.perf_counter()
        self.log.append(drafted(SOURCE, prepare_rows(SOURCE, batch), NOW, None))
        self.acknowledged.append((time.perf_counter() - began) * 1e3)

    def append(self, n: int) -> None:
        self.acknowledge(rows(ROWS, HELD + n * ROWS))
        if self.log.waiting_rows() >= COMMIT:
            self.commit()

    def commit(self) -> None:
        with self.tables.writing(SOURCE.log):
            commit_waiting(self.tables, self.log)
            retire(self.tables, self.log)

    def at_once(self, threads: int, pushes: int) -> tuple[float, float]:
        """Pushes a second, and ms of CPU of each, from several threads."""
        batches = [[rows(ROWS, (t * pushes + n) * ROWS) for n in range(pushes)] for t in range(threads)]
        working = [threading.Thread(target=lambda mine=mine: [*map(self.acknowledge, mine)]) for mine in batches]
        began, spent = time.perf_counter(), time.process_time()
        for thread in working:
            thread.start()
        for thread in working:
            thread.join()
        count = threads * pushes
        return count / (time.perf_counter() - began), (time.process_time() - spent) / count * 1e3


def committed(folder: Path, commits: int) -> list[float]:
    """CPU ms of each of so many commits to a table of its own."""
    tables, spent = open_tables(DeltaSettings(), folder), []
    for number in range(commits):
        began = time.process_time()
        tables.append("readings", rows(ROWS, number * ROWS), Txn("bench", number + 1), notes={"log": "x" * 200})
        spent.append((time.process_time() - began) * 1e3)
    return spent


def plain(folder: Path) -> Callable[[int], object]:
    handle = deltalake.DeltaTable.create(folder / "plain", rows(1, 0).schema)
    deltalake.write_deltalake(handle, rows(HELD, 0), mode="append")

    def append(n: int) -> None:
        properties = deltalake.CommitProperties(
            max_commit_retries=0, app_transactions=[deltalake.Transaction(f"batch/{n}", 1)]
        )
        deltalake.write_deltalake(handle, rows(ROWS, HELD + n * ROWS), mode="append", commit_properties=properties)

    return append


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pushes", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        ours, peer = Ours(Path(temporary)), plain(Path(temporary))
        sides: dict[str, Callable[[int], object]] = {"ours": ours.append, "delta-rs": peer}
        spent: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(given.pushes):  # in turn, so that a noisy machine is noisy for both
            for name, append in sides.items():
                began = time.process_time()
                append(number)
                spent[name].append((time.process_time() - began) * 1e3)
        ordered = sorted(ours.acknowledged)
        ours.commit()
        share = max(given.pushes // 8, 1)
        means = {name: (statistics.mean(t[:share]), statistics.mean(t[-share:])) for name, t in spent.items()}
        for name, (first, last) in means.items():
            print(f"{name:<9} CPU ms: first {share} {first:.2f}, last {share} {last:.2f}, grown {last / first:.2f}x")
        p50, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
        print(f"acknowledged in ms: p50 {p50:.2f}, p99 {p99:.2f}")
        rate, cpu = ours.at_once(given.threads, given.pushes // given.threads)
        print(f"{given.threads} threads: {rate:.0f} pushes of {ROWS} rows a second, {cpu:.2f} ms of CPU each")
        ours.log.close()
        every = committed(Path(temporary) / "commits", given.pushes)
    tenth = max(given.pushes // 10, 1)
    few, many = statistics.mean(every[:tenth]), statistics.mean(every[-tenth:])
    print(f"commits   CPU ms: first {tenth} {few:.2f}, last {tenth} {many:.2f}, grown {many / few:.2f}x (bar 1.5x)")
    grown = means["ours"][1] / means["ours"][0]
    against = statistics.mean(spent["ours"]) / statistics.mean(spent["delta-rs"])
    print(f"grown {grown:.2f}x (bar 1.5x), over all {against:.2f}x the CPU of delta-rs (bar 1.5x), p50 bar 10 ms")
    return int(max(grown, many / few) > 1.5 or against > 1.5 or p50 > 10)


if __name__ == "__main__":
    sys.exit(main())
