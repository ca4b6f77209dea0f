"""Larger than memory: 1M questions to 10M rows of 20 columns, and nine windows over them, within 1 GiB.

    python bench/memory.py [--rows 10000000] [--labels 1000000] [--limit 400MiB]
    python bench/memory.py --peer [--rows 1000000 --labels 100000 --entities 2000]

The log is made once; each question is asked in a process of its own with ``tables.memory`` set, whose peak of resident
memory counts: interpreter, libraries, questions and answers included. Bar: 1 GiB, and the checksum of no limit.

``--peer`` asks Feast's DuckDB store the first question too, in a process of its own, both sides reading Parquet and
each asked once, without a warm-up and without a limit. Bars: peak memory <= 1/2.5 of Feast's at 100k x 1M; at 1M x 10M
<= 1/6, with <= 1/3 of its wall time and <= 1/6 of its CPU; the same checksum. Feast's DuckDB is told that it has
``--most`` GB, and spills to disk beyond.
"""

import argparse
import hashlib
import pathlib
import resource
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import pyarrow.parquet as pq
from point_in_time import START, an_app, checksum, data, feast, labels, measured

from mainspring import Frame
from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.features.logs.ingest import prepare_rows
from mainspring.features.logs.project import update_view
from mainspring.features.logs.write import ingest_batch
from mainspring.features.offline.history import history

_BAR = 1024
_LARGE = 5_000_000
"""Rows from which the bars of the larger question hold."""


def make(place: pathlib.Path, rows: int, count: int, entities: int, peer: bool) -> None:
    """The log, and what Feast reads; in a process of its own, because it takes more memory than what is measured."""
    source, *views = an_app()
    services = SimpleNamespace(tables=open_tables(DeltaSettings(), place))
    made = data(rows, entities, 0)
    pq.write_table(labels(count, entities, 0), place / "spine.parquet")
    if peer:
        pq.write_table(made, place / "rows.parquet")
        del views[1:]
    at = ingest_batch(services.tables, source, prepare_rows(source, made), content="bench", now_us=START)
    for view in views:
        update_view(services.tables, view, source, at)


def ask(place: pathlib.Path, which: str, limit: str) -> None:
    _, view, windowed = an_app()
    tables = open_tables(DeltaSettings(memory=None if limit == "none" else limit), place)
    frame = Frame(pq.read_table(place / "spine.parquet"))
    asked = view if which == "newest" else windowed
    found, wall, spent = measured(lambda: history(SimpleNamespace(tables=tables), [asked], frame).arrow())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if which == "newest":
        summed = checksum(found)
    else:
        columns = (found.column(feature.name).to_pandas().to_numpy().tobytes() for feature in windowed.features)
        summed = hashlib.blake2b(b"".join(columns), digest_size=8).hexdigest()
    print(f"{which} {limit} {summed} {peak:.0f} {wall:.2f} {spent:.2f}")


def alone(place: pathlib.Path, *words: str) -> list[str]:
    """What a process of its own printed."""
    command = [sys.executable, __file__, "--place", str(place), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def shown(name: str, cost: dict[str, float], summed: str) -> None:
    line = f"{name:8} {cost['memory']:7.0f} MiB   wall {cost['wall']:7.2f} s   cpu {cost['cpu']:7.2f} s   {summed}"
    print(line, flush=True)


def compared(place: pathlib.Path, rows: int, most: int) -> bool:
    """Ours beside Feast's, once each."""
    _, _, summed, peak, wall, spent = alone(place, "--ask", "newest", "none")
    print(
        f"ours     {float(peak):7.0f} MiB   wall {float(wall):7.2f} s   cpu {float(spent):7.2f} s   {summed}",
        flush=True,
    )
    try:
        peer = feast(place / "rows.parquet", place / "spine.parquet", place, 1, most)
    except RuntimeError as error:
        print(f"Feast did not finish with {most} GB: {error}")
        return False
    ((peer_wall, peer_spent),) = peer["rounds"]
    print(
        f"feast    {peer['memory']:7.0f} MiB   wall {peer_wall:7.2f} s   cpu {peer_spent:7.2f} s   {peer['checksum']}"
    )
    times = {
        "memory": peer["memory"] / float(peak),
        "wall": peer_wall / float(wall),
        "cpu": peer_spent / float(spent),
    }
    bars = {"memory": 6, "wall": 3, "cpu": 6} if rows >= _LARGE else {"memory": 2.5}
    for name, bar in bars.items():
        print(f"ours / Feast, {name}: 1/{times[name]:.1f} (bar 1/{bar})")
    same = peer["checksum"] == summed
    print(f"answers {'agree' if same else 'DIFFER'}")
    return same and all(times[name] >= bar for name, bar in bars.items())


def limited(place: pathlib.Path, limit: str) -> bool:
    """Each question without a limit and with one."""
    good = True
    for which in ("newest", "windows"):
        sums = set()
        for each in ("none", limit):
            _, _, summed, peak, wall, spent = alone(place, "--ask", which, each)
            sums.add(summed)
            print(f"{which:8} limit {each:8} {peak:>6} MiB   wall {wall} s   cpu {spent} s   {summed}")
            good = good and (each == "none" or float(peak) <= _BAR)
        good = good and len(sums) == 1
    return good


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--labels", type=int, default=1_000_000)
    parser.add_argument("--entities", type=int, default=20_000)
    parser.add_argument("--limit", default="400MiB")
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--most", type=int, default=11)
    parser.add_argument("--place", type=pathlib.Path)
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--ask", nargs=2)
    asked = parser.parse_args()
    if asked.make:
        make(asked.place, asked.rows, asked.labels, asked.entities, asked.peer)
        return 0
    if asked.ask:
        ask(asked.place, *asked.ask)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        place = asked.place or pathlib.Path(folder)
        if asked.place is None:
            sizes = {"--rows": asked.rows, "--labels": asked.labels, "--entities": asked.entities}
            words = [word for name, size in sizes.items() for word in (name, str(size))]
            alone(place, "--make", *words, *["--peer"][: asked.peer])
        good = compared(place, asked.rows, asked.most) if asked.peer else limited(place, asked.limit)
    print("met" if good else f"NOT met{'' if asked.peer else f' (bar {_BAR} MiB, same answers)'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
