"""The point-in-time join: 100k labels x 1M rows x 20 columns, as of each label's moment.

    python bench/point_in_time.py              ours beside the same semantics written by hand in DuckDB
    python bench/point_in_time.py --peer       and Feast's DuckDB store, in its own venv under bench/.peers
    python bench/point_in_time.py --windows    nine windows over the same rows, each kernel, even and skewed

Bars: <= 1.25 x the hand-written query; <= 1/5 of Feast's wall time and <= 1/8 of its CPU; the same checksum.
Every side reads Parquet files from disk and hands over an Arrow table (Feast: its own data frame).

The default is 2,000 entities, 500 rows each. Feast joins every label with all earlier rows of its entity, so its cost
grows with rows per entity, and ours does not: ``--entities`` moves the ratio either way (at 100,000 entities, ten rows
each, there is nothing to win).
"""

import argparse
import hashlib
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from datetime import datetime
from types import SimpleNamespace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mainspring import App, Entity, Frame, Record, highest, last, stddev, total
from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.features.logs.ingest import prepare_rows
from mainspring.features.logs.log import source_of
from mainspring.features.logs.project import update_view
from mainspring.features.logs.write import ingest_batch
from mainspring.features.offline.history import KERNELS, history
from mainspring.features.view import view_of
from mainspring.features.windows import question

COLUMNS = 20
START = 1_600_000_000_000_000
SPAN = 30 * 86_400_000_000
TTL = 7 * 86_400_000_000
PEERS = pathlib.Path(__file__).parent / ".peers" / "feast"
PACKAGES = ("feast[duckdb]==0.67.0",)


def cpu() -> float:
    """Seconds of processor time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measured(run):
    start, spent = time.perf_counter(), cpu()
    found = run()
    return found, time.perf_counter() - start, cpu() - spent


def an_app():
    fields = {f"f{index}": float | None for index in range(COLUMNS)}
    record = type("Row", (Record,), {"__annotations__": {"user": str, **fields, "happened": datetime}})
    app = App("bench")
    rows = app.source(record, time="happened", called="rows")
    user = Entity("user")
    names = {name: last(name) for name in fields}
    view = app.features(rows, entity=user, ttl="7d", called="view", **names)
    windows = {}
    for window in ("1h", "1d", "7d"):
        windows |= {
            f"total_{window}": total("f0", window),
            f"high_{window}": highest("f1", window),
            f"std_{window}": stddev("f2", window),
        }
    return source_of(rows), view_of(view), view_of(app.features(rows, entity=user, called="windows", **windows))


def data(rows: int, entities: int, seed: int):
    rng = np.random.default_rng(seed)
    users = pa.array([f"user{index:07d}" for index in range(entities)])
    moments = np.sort(rng.choice(SPAN // 1000, rows, replace=False)) * 1000 + START
    columns = {"user": users.take(pa.array(rng.integers(0, entities, rows)))}
    columns |= {f"f{index}": pa.array(rng.normal(size=rows)) for index in range(COLUMNS)}
    columns["happened"] = pa.array(moments, pa.timestamp("us", "UTC"))
    return pa.table(columns)


def labels(count_: int, entities: int, seed: int, hot: float = 0.0):
    rng = np.random.default_rng(seed + 1)
    picked = np.where(rng.random(count_) < hot, 0, rng.integers(0, entities, count_))
    return pa.table(
        {
            "label": pa.array(rng.integers(0, 2, count_)),
            "user": pa.array([f"user{index:07d}" for index in picked]),
            "at": pa.array(rng.integers(0, SPAN // 1000, count_) * 1000 + START, pa.timestamp("us", "UTC")),
        }
    )


BY_HAND = """
with narrow as (
  select "user" as k, epoch_us(_event_time) as event, epoch_us(_ingest_time) as ingest, _seq as seq, _deleted as dead,
         greatest(event, ingest) as vis from read_parquet({files})),
best as (
  select k, vis, event, seq, dead from (
    select *, max(event) over w as m, lead(vis) over w as nx from narrow
    window w as (partition by k order by vis, event, ingest, seq
                 rows between unbounded preceding and current row))
  where event = m and nx is distinct from vis),
hit as (
  select s.rid, case when not b.dead and b.event >= s.t - {ttl} then b.seq end as seq
  from spine s asof left join best b on s.k = b.k and s.t >= b.vis)
select {columns} from hit h left join read_parquet({files}) l on l._seq = h.seq order by h.rid
"""


def by_hand(files, spine: pa.Table) -> pa.Table:
    narrow = pa.table(
        {
            "rid": pa.array(np.arange(len(spine))),
            "k": spine.column("user"),
            "t": spine.column("at").cast(pa.int64()),
        }
    )
    with duckdb.connect() as opened:
        opened.execute("set timezone = 'UTC'; set preserve_insertion_order = false")
        opened.register("spine", narrow)
        columns = ", ".join(f"l.f{index}" for index in range(COLUMNS))
        found = opened.sql(BY_HAND.format(files=list(files), ttl=TTL, columns=columns)).to_arrow_table()
    for name in found.column_names:
        spine = spine.append_column(name, found.column(name))
    return spine


def checksum(table: pa.Table) -> str:
    """A digest of all features, rounded, in the order of the labels."""
    hashed = hashlib.blake2b(digest_size=8)
    for index in range(COLUMNS):
        column = table.column(f"f{index}").to_numpy()
        hashed.update(np.nan_to_num(np.round(column, 9), nan=1e9).tobytes())
    return hashed.hexdigest()


FEAST = """
import json, resource, sys, time, hashlib, warnings
warnings.simplefilter("ignore")
from datetime import timedelta
import numpy as np, pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float64
from feast.value_type import ValueType
rows, spine, folder, rounds, columns = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
config = RepoConfig(project="bench", provider="local", registry=folder + "/registry.db",
    offline_store={"type": "duckdb"}, online_store={"type": "sqlite", "path": folder + "/online.db"},
    entity_key_serialization_version=3)
store = FeatureStore(config=config)
user = Entity(name="user", join_keys=["user"], value_type=ValueType.STRING)
source = FileSource(path=rows, timestamp_field="happened", name="rows")
if sys.argv[6] != "0":  # so that it knows when to spill, which it does to disk
    import ibis
    ibis.set_backend(ibis.duckdb.connect(memory_limit=sys.argv[6] + "GB", temp_directory=folder + "/spill",
        max_temp_directory_size="20GB"))
names = [f"f{i}" for i in range(columns)]
view = FeatureView(name="view", entities=[user], ttl=timedelta(days=7), source=source,
    schema=[Field(name=n, dtype=Float64) for n in names])
store.apply([user, view])
labels = pd.read_parquet(spine).rename(columns={"at": "event_timestamp"})
labels["rid"] = np.arange(len(labels))
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
best = []
for _ in range(rounds):
    start, spent = time.perf_counter(), cpu()
    found = store.get_historical_features(entity_df=labels, features=[f"view:{n}" for n in names]).to_df()
    best.append([time.perf_counter() - start, cpu() - spent])
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
found = found.sort_values("rid")
hashed = hashlib.blake2b(digest_size=8)
for n in names:
    hashed.update(np.nan_to_num(np.round(found[n].to_numpy(dtype=float), 9), nan=1e9).tobytes())
print(json.dumps({"rounds": best, "checksum": hashed.hexdigest(), "rows": len(found), "memory": memory}))
"""


def feast_python() -> pathlib.Path:
    """The interpreter of a venv with Feast; made at the first use."""
    if not (PEERS / "bin" / "python").exists():
        print("making a venv for Feast ...", file=sys.stderr)
        venv.create(PEERS, with_pip=True)
        subprocess.run([PEERS / "bin" / "pip", "install", "--quiet", *PACKAGES], check=True)
    return PEERS / "bin" / "python"


def feast(rows: pathlib.Path, spine: pathlib.Path, folder: pathlib.Path, rounds: int, most: int = 0):
    """Feast's answer to the same question in a process of its own.

    Args:
        rows: the log, Parquet.
        spine: the labels, Parquet.
        folder: for its registry.
        rounds: how often it is asked.
        most: GB of memory that its DuckDB is told it may take, and spills beyond, or 0 for its own default. A process
            that takes a third more than that fails.
    """
    command = [feast_python(), "-c", FEAST, rows, spine, folder, str(rounds), str(COLUMNS), str(most)]
    end = most * 4 * 10**9 // 3
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"FEAST_USAGE": "False"},
        preexec_fn=lambda: end and resource.setrlimit(resource.RLIMIT_DATA, (end, end)),
    )
    if done.returncode:
        raise RuntimeError(f"Feast ended with {done.returncode}: {done.stderr[-600:]}")
    return json.loads(done.stdout.splitlines()[-1])


def line(name: str, walls, cpus, sum_: str = "") -> None:
    print(f"{name:28} wall {statistics.median(walls):7.3f} s   cpu {statistics.median(cpus):7.3f} s   {sum_}")


def windows(services, view, count_: int, entities: int, seed: int) -> None:
    for name, hot in (("even", 0.0), ("half on one user", 0.5)):
        spine = Frame(labels(count_, entities, seed, hot))
        for kernel, worth in (("ranges", 1e18), ("prefix", -1), ("chosen", question._WORTH)):
            kept, question._WORTH = question._WORTH, worth
            try:
                runs = [measured(lambda spine=spine: history(services, [view], spine)) for _ in range(3)]
            finally:
                question._WORTH = kept
            chosen = json.loads(runs[0][0].arrow().schema.metadata[KERNELS])["windows"]
            line(f"9 windows, {name}: {kernel}", [run[1] for run in runs], [run[2] for run in runs], chosen)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--labels", type=int, default=100_000)
    parser.add_argument("--entities", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--windows", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        source, view, windowed = an_app()
        rows, spine = data(asked.rows, asked.entities, asked.seed), labels(asked.labels, asked.entities, asked.seed)
        services = SimpleNamespace(tables=open_tables(DeltaSettings(), folder))
        prepared, wall, spent = measured(lambda: prepare_rows(source, rows))
        at, more, extra = measured(
            lambda: ingest_batch(services.tables, source, prepared, content="bench", now_us=START)
        )
        line("source log", [wall + more], [spent + extra])
        for item in (view, windowed):
            _, wall, spent = measured(lambda item=item: update_view(services.tables, item, source, at))
            line(f"view log {item.name}", [wall], [spent])
        ours, hand = [], []
        frame = Frame(spine)
        files = services.tables.files(view.log)
        for _ in range(asked.rounds + 1):  # the first round of each warms caches and imports
            ours.append(measured(lambda: history(services, [view], frame).arrow()))
            hand.append(measured(lambda: by_hand(files, spine)))
        ours, hand = ours[1:], hand[1:]
        sums = [checksum(ours[0][0]), checksum(hand[0][0])]
        line("ours", [run[1] for run in ours], [run[2] for run in ours], sums[0])
        line("by hand", [run[1] for run in hand], [run[2] for run in hand], sums[1])
        ratios = [mine[1] / other[1] for mine, other in zip(ours, hand, strict=True)]
        good = sums[0] == sums[1] and statistics.median(ratios) <= 1.25
        same = "equal" if sums[0] == sums[1] else "DIFFER"
        print(f"ours / by hand: {statistics.median(ratios):.2f} (bar 1.25), checksums {same}")
        if asked.peer:
            pq.write_table(rows, folder / "rows.parquet")
            pq.write_table(spine, folder / "spine.parquet")
            peer = feast(folder / "rows.parquet", folder / "spine.parquet", folder, asked.rounds)
            line("feast, duckdb", *zip(*peer["rounds"], strict=True), peer["checksum"])
            wall = statistics.median(run[1] for run in ours) / statistics.median(run[0] for run in peer["rounds"])
            spent = statistics.median(run[2] for run in ours) / statistics.median(run[1] for run in peer["rounds"])
            print(f"ours / Feast: wall 1/{1 / wall:.1f} (bar 1/5), cpu 1/{1 / spent:.1f} (bar 1/8)")
            good = good and wall <= 1 / 5 and spent <= 1 / 8 and peer["checksum"] == sums[0]
        if asked.windows:
            windows(services, windowed, asked.labels, asked.entities, asked.seed)
    print("met" if good else "NOT met")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
