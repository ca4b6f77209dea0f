"""What reading a source whole holds in memory: a million rows beside ten million.

    python bench/whole_reads.py [--rows 1000000 10000000] [--folder DIR]

A Parquet file of five columns is read into the log of a source, all or nothing, as a step does it; then once more with
a row changed, when all of it is compared with what the log holds. Each is a process of its own, whose peak of resident
memory counts. Bar: the first read of ten times the rows takes at most 1.5 times the memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.declare.app import App
from mainspring.declare.record import Record
from mainspring.features.logs.log import source_of
from mainspring.features.logs.write import ingest_batch
from mainspring.features.sources.files import read_files
from mainspring.features.sources.staged import STAGED, Staging

START = 1_700_000_000_000_000
PART = 500_000
BAR = 1.5


class Reading(Record):
    """A row of the file."""

    key: str
    value: float | None
    count: int
    note: str | None
    at: datetime


SOURCE = source_of(App("bench").source(Reading, time="at", called="readings"))


def write(path: Path, rows: int, changed: bool) -> None:
    with pq.ParquetWriter(path, part(0, 1, False).schema) as writer:
        for start in range(0, rows, PART):
            writer.write_table(part(start, min(PART, rows - start), changed and start == 0))


def part(start: int, count: int, changed: bool) -> pa.Table:
    numbers = np.arange(start, start + count)
    values = np.random.default_rng(start).random(count)
    values[0] += changed
    return pa.table(
        {
            "key": pa.array([f"k{number % 9973}" for number in numbers]),
            "value": values,
            "count": numbers,
            "note": pa.array([f"reading {number}" for number in numbers]),
            "at": pa.array(START + numbers * 1000).cast(pa.timestamp("us", "UTC")),
        }
    )


def read(folder: Path, content: str) -> None:
    """One read, in this process; prints its CPU seconds and its peak in MiB."""
    began = time.process_time()
    tables = open_tables(DeltaSettings(), folder)
    raw = read_files([folder / f"{content}.parquet"], SOURCE.fields, source=SOURCE.name)
    with Staging(tables.beside(STAGED)) as staging:
        prepared = staging.prepare(SOURCE, raw)
        done = ingest_batch(tables, SOURCE, prepared, content=content, now_us=START)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{time.process_time() - began:.1f} {peak} {done.rows}")


def child(folder: Path, content: str) -> tuple[float, int]:
    command = [sys.executable, __file__, "--folder", str(folder), "--read", content]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    cpu, peak, _ = done.stdout.split()
    return float(cpu), int(peak)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        read(given.folder, given.read)
        return 0
    peaks = []
    for rows in given.rows:
        with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
            folder = Path(temporary)
            for content in ("first", "changed"):
                write(folder / f"{content}.parquet", rows, content == "changed")
                cpu, peak = child(folder, content)
                print(f"{rows:>11,} rows, {content:<8} {peak:>6} MiB at most, {cpu:6.1f} CPU s", flush=True)
                peaks += [peak] * (content == "first")
    grown = peaks[-1] / peaks[0]
    print(f"{grown:.2f} times the memory for {given.rows[-1] / given.rows[0]:.0f} times the rows (bar {BAR})")
    return int(grown > BAR)


if __name__ == "__main__":
    sys.exit(main())
