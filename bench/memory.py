"""Larger than memory: 1M questions to 10M rows of 20 columns, and nine windows over them, within 1 GiB.

    python bench/memory.py [--rows 10000000] [--labels 1000000] [--limit 400MiB]

The log is made once; each question is asked in a process of its own with ``tables.memory`` set, whose peak of resident
memory counts: interpreter, libraries, questions and answers included. Bar: 1 GiB, and the checksum of no limit.
"""

import argparse
import hashlib
import pathlib
import resource
import subprocess
import sys
import tempfile
from types import SimpleNamespace

from point_in_time import START, an_app, checksum, data, labels, measured

from mainspring import Frame
from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.features.history import history
from mainspring.features.ingest import prepare_rows
from mainspring.features.project import update_view
from mainspring.features.write import ingest_batch

_BAR = 1024


def make(place: pathlib.Path, rows: int, entities: int) -> None:
    source, *views = an_app()
    services = SimpleNamespace(tables=open_tables(DeltaSettings(), place))
    prepared = prepare_rows(source, data(rows, entities, 0))
    at = ingest_batch(services.tables, source, prepared, content="bench", now_us=START)
    for view in views:
        update_view(services.tables, view, source, at)


def ask(place: pathlib.Path, count: int, entities: int, which: str, limit: str) -> None:
    _, view, windowed = an_app()
    tables = open_tables(DeltaSettings(memory=None if limit == "none" else limit), place)
    frame = Frame(labels(count, entities, 0))
    asked = view if which == "newest" else windowed
    found, wall, spent = measured(lambda: history(SimpleNamespace(tables=tables), [asked], frame).arrow())
    if which == "newest":
        summed = checksum(found)
    else:
        columns = (found.column(feature.name).to_pandas().to_numpy().tobytes() for feature in windowed.features)
        summed = hashlib.blake2b(b"".join(columns), digest_size=8).hexdigest()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{which} {limit} {summed} {peak:.0f} {wall:.1f} {spent:.1f}")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--labels", type=int, default=1_000_000)
    parser.add_argument("--entities", type=int, default=20_000)
    parser.add_argument("--limit", default="400MiB")
    parser.add_argument("--place", type=pathlib.Path)
    parser.add_argument("--ask", nargs=2)
    asked = parser.parse_args()
    if asked.ask:
        ask(asked.place, asked.labels, asked.entities, *asked.ask)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        place = asked.place or pathlib.Path(folder)
        if asked.place is None:
            make(place, asked.rows, asked.entities)
        good = True
        for which in ("newest", "windows"):
            sums = set()
            for limit in ("none", asked.limit):
                sizes = ["--labels", str(asked.labels), "--entities", str(asked.entities), "--place", str(place)]
                command = [sys.executable, __file__, *sizes, "--ask", which, limit]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                _, _, summed, peak, wall, spent = done.stdout.split()
                sums.add(summed)
                print(f"{which:8} limit {limit:8} {peak:>6} MiB   wall {wall} s   cpu {spent} s   {summed}")
                good = good and (limit == "none" or float(peak) <= _BAR)
            good = good and len(sums) == 1
    print(f"{'met' if good else 'NOT met'} (bar {_BAR} MiB, same answers)")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
