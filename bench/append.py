"""Commits of small batches to a log: what the thousandth costs beside the first, and beside plain delta-rs.

    python bench/append.py [--commits 1000]

Both sides append 40 rows a commit to a table of 200,000 rows, each commit with a transaction of its own. Plain delta-rs
is one `write_deltalake` a commit, with nothing put together.

Bars: the last 100 <= 1.3 x the first 100; <= 15 ms; <= 1.5 x plain delta-rs. The first is about what a commit costs in
a table that has taken a thousand; plain delta-rs grows with each file. What growth is left on our side is delta-rs
listing the folder of commits, which have to stay for as long as old versions are read: fewer, larger commits are the
remedy.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.ports.tables import Txn

ROWS, HELD = 40, 200_000


def rows(count: int, start: int) -> pa.Table:
    chance = np.random.default_rng(start)
    return pa.table(
        {
            "seq": np.arange(start, start + count),
            "key": pa.array([f"k{number % 97}" for number in range(start, start + count)]),
            "value": chance.random(count),
        }
    )


def ours(folder: Path) -> Callable[[int], object]:
    store = open_tables(DeltaSettings(), folder)
    store.append("t", rows(HELD, 0), Txn("first", 1))
    return lambda n: store.append("t", rows(ROWS, HELD + n * ROWS), Txn(f"batch/{n}", 1))


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
    parser.add_argument("--commits", type=int, default=1000)
    commits = parser.parse_args().commits
    with tempfile.TemporaryDirectory() as temporary:
        sides = {"ours": ours(Path(temporary)), "delta-rs": plain(Path(temporary))}
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(commits):  # in turn, so that a noisy machine is noisy for both
            for name, append in sides.items():
                began = time.perf_counter()
                append(number)
                taken[name].append((time.perf_counter() - began) * 1e3)
    share = max(commits // 10, 1)
    means = {name: (statistics.mean(t[:share]), statistics.mean(t[-share:])) for name, t in taken.items()}
    for name, (first, last) in means.items():
        print(f"{name:<9} ms a commit: first {share} {first:.2f}, last {share} {last:.2f}, grown {last / first:.2f}x")
    grown, last = means["ours"][1] / means["ours"][0], means["ours"][1]
    against = statistics.mean(taken["ours"]) / statistics.mean(taken["delta-rs"])
    print(f"grown {grown:.2f}x (bar 1.3x), last {last:.1f} ms (bar 15 ms), over all {against:.2f}x delta-rs (bar 1.5x)")
    return int(grown > 1.3 or last > 15 or against > 1.5)


if __name__ == "__main__":
    sys.exit(main())
