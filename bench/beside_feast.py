"""Online reads, HTTP and materialisation beside Feast 0.67: the same rows, its SQLite store and its feature server.

    python bench/beside_feast.py [online] [http] [materialise]        all three when none is named

Both sides are whole products: a project of ours that was applied, and a Feast repository that was applied and
materialised, in a venv of its own under bench/.peers, from the same Parquet files. Answers are compared value by value.

Bars, in CPU time of all threads, of the server's whole process tree for HTTP:
online       1 x 20 in process <= 1/60 of Feast's SDK and <= 2.5 x a raw LMDB get and msgpack decode; 100 x 50 <= 1/40
             and <= 2 x raw
http         100 x 50 <= 1/50 of Feast's feature server and <= 1.3 x a raw ASGI handler on uvicorn that does the same,
             with 1 and with 16 connections
materialise  >= 20 x Feast's rows a second, into an empty store; the peak of memory (without the pages of the store's
             file, which the system may take back) of 3 times the rows at most 1.2 x
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import uvicorn
from point_in_time import feast_python
from predict import free_port, post

from mainspring import App, Entity, Record, feature_store, last
from mainspring.features.online.keys import column_packer, key_packer
from mainspring.features.view import View, view_of

WIDTHS = {"narrow": 20, "wide": 50}
ENTITIES, MANY, ROUNDS = 10_000, 100, 5
SIZES = (100_000, 300_000, 900_000)
"""Rows of a materialisation: Feast does the first, and memory may not grow from the second to the third."""
NOW = 1_700_000_000_000_000
_RAW: dict[Path, Any] = {}
"""Environments that are open: one a folder and process."""
HZ = os.sysconf("SC_CLK_TCK")

APP = """
from bench_declarations import an_app

app, narrow, wide = an_app()
few = app.feature_service("few", [narrow])
many = app.feature_service("many", [wide])
"""
SETTINGS = """
app = "fleet:app"
management.port = 0

[sources.narrow_rows]
path = "narrow.parquet"

[sources.wide_rows]
path = "wide.parquet"
"""
REPOSITORY = """
project: bench
provider: local
registry: registry.db
offline_store:
    type: duckdb
online_store:
    type: sqlite
    path: online.db
entity_key_serialization_version: 3
"""
DEFINITIONS = """
from datetime import timedelta
from pathlib import Path
from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.types import Float64
from feast.value_type import ValueType

user = Entity(name="user", join_keys=["user"], value_type=ValueType.STRING)

def a_view(name, width):
    source = FileSource(name=name + "_rows", path=str(Path(__file__).parent.parent / (name + ".parquet")),
        timestamp_field="happened")
    schema = [Field(name=f"{name[0]}{i}", dtype=Float64) for i in range(width)]
    return FeatureView(name=name, entities=[user], ttl=timedelta(days=3650), source=source, schema=schema)

views = {name: a_view(name, width) for name, width in WIDTHS.items()}
narrow, wide = views.values()
few, many = FeatureService(name="few", features=[narrow]), FeatureService(name="many", features=[wide])
"""
FEAST = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
from datetime import datetime, timezone
from feast import FeatureStore
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
store = FeatureStore(repo_path=".")
what = sys.argv[1]
if what == "materialise":
    views, rows = sys.argv[2].split(","), int(sys.argv[3])
    began, spent = time.perf_counter(), cpu()
    start = datetime(2020, 1, 1, tzinfo=timezone.utc)
    store.materialize(start, datetime.now(timezone.utc), feature_views=views)
    found = {"wall": time.perf_counter() - began, "cpu": cpu() - spent,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
else:
    service, keys, count, rounds = store.get_feature_service(what), *map(int, sys.argv[2:])
    rows = [{"user": f"user{i:06d}"} for i in range(keys)]
    found = {"us": []}
    for _ in range(rounds + 1):
        spent = cpu()
        for _ in range(count):
            answer = store.get_online_features(features=service, entity_rows=rows).to_dict()
        found["us"].append((cpu() - spent) / count * 1e6)
    found["us"], found["answer"] = found["us"][1:], answer
print()
print(json.dumps(found))
"""


def an_app() -> tuple[App, Any, Any]:
    """The views of both widths, each on a source of its own."""
    app, user, views = App("fleet"), Entity("user"), []
    for name, width in WIDTHS.items():
        fields = {f"{name[0]}{index}": float | None for index in range(width)}
        annotations = {"user": str, **fields, "happened": datetime}
        record = type(name.title(), (Record,), {"__annotations__": annotations})
        source = app.source(record, time="happened", called=f"{name}_rows")
        aggregates: dict[str, Any] = {field: last(field) for field in fields}
        views.append(app.features(source, entity=user, called=name, **aggregates))
    return app, *views


def rows_of(name: str, rows: int, entities: int) -> pa.Table:
    random = np.random.default_rng(WIDTHS[name])
    columns: dict[str, object] = {"user": [f"user{number % entities:06d}" for number in range(rows)]}
    columns |= {f"{name[0]}{index}": random.normal(size=rows) for index in range(WIDTHS[name])}
    moments = np.sort(random.choice(1 << 36, rows, replace=False)) + NOW - (1 << 36)
    columns["happened"] = pa.array(moments, pa.timestamp("us", "UTC"))
    return pa.table(columns)


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# -- the two sides ----------------------------------------------------------------------------------------------------


def make_ours(folder: Path) -> None:
    """A project whose views are online."""
    (folder / "fleet.py").write_text(APP)
    (folder / "bench_declarations.py").write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n")
    with (folder / "bench_declarations.py").open("a") as file:
        file.write("from beside_feast import an_app\n")
    (folder / "mainspring.toml").write_text(SETTINGS)
    command = [sys.executable, "-m", "mainspring.cli", "apply"]
    run(command, folder)


def run(command: list[Any], folder: Path) -> str:
    """What a command printed, which must succeed."""
    environment = os.environ | {"FEAST_USAGE": "False"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{command[0]} {done.returncode}: {done.stdout[-400:]}{done.stderr[-800:]}")
    return done.stdout


def make_feast(folder: Path) -> None:
    """A repository that was applied."""
    repository = folder / "feast"  # which reads every module that lies in it
    repository.mkdir()
    (repository / "feature_store.yaml").write_text(REPOSITORY)
    (repository / "definitions.py").write_text(f"WIDTHS = {WIDTHS!r}\n{DEFINITIONS}")
    run([feast_python().parent / "feast", "apply"], repository)


def feast(folder: Path, *words: object) -> dict[str, Any]:
    """What a process of Feast's printed."""
    printed = run([feast_python(), "-c", FEAST, *map(str, words)], folder / "feast")
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def raw_store(folder: Path) -> None:
    """The wide and the narrow rows in LMDB by hand: the same keys, a msgpack array each."""
    _, *declared = an_app()
    encode = msgspec.msgpack.Encoder().encode
    with lmdb.open(str(folder / "raw"), map_size=1 << 28) as opened, opened.begin(write=True) as transaction:
        for number, view in enumerate(map(view_of, declared), 1):
            table = pq.read_table(folder / f"{view.name}.parquet")
            pack = key_packer(number, view.keys)
            values = zip(*(table.column(column.name).to_pylist() for column in view.columns), strict=True)
            for user, row in zip(table.column("user").to_pylist(), values, strict=True):
                transaction.put(pack({"user": user}), encode(row))


def raw_reader(
    folder: Path, number: int, view: View
) -> tuple[Callable[[list[str]], list[bytes]], Callable[[list[bytes]], list[Any]]]:
    """Packs a column of keys as fast as we can, and reads and decodes rows by hand."""
    opened = _RAW.setdefault(folder, None) or lmdb.open(str(folder / "raw"), readonly=True)
    _RAW[folder] = opened
    decode, pack = msgspec.msgpack.Decoder().decode, column_packer(number, view.keys[0])

    def read(keys: list[bytes]) -> list[Any]:
        with opened.begin() as transaction:
            return [decode(transaction.get(key)) for key in keys]

    return pack, read


# -- in process -------------------------------------------------------------------------------------------------------


def timed(action: Callable[[], object], count: int) -> float:
    began = cpu()
    for _ in range(count):
        action()
    return (cpu() - began) / count * 1e6


def online(folder: Path) -> bool:
    good = True
    _, *declared = an_app()
    views = [view_of(view) for view in declared]
    with feature_store(folder) as store:
        for service, view, keys, counts, least, most in (
            ("few", views[0], 1, (3_000, 200), 60, 2.5),
            ("many", views[1], MANY, (60, 20), 40, 2.0),
        ):
            asked = [{"user": f"user{index:06d}"} for index in range(keys)]
            pack, read = raw_reader(folder, 1 + views.index(view), view)
            packed = pack([row["user"] for row in asked])
            rounds = []
            for _ in range(ROUNDS + 1):
                ours = timed(lambda service=service, asked=asked: store.online(service, asked), counts[0])
                rounds.append((ours, timed(lambda read=read, packed=packed: read(packed), counts[0])))
            ours, raw = (statistics.median(side) for side in zip(*rounds[1:], strict=True))
            over = statistics.median(mine / theirs for mine, theirs in rounds[1:])
            peer = feast(folder, service, keys, counts[1], ROUNDS)
            theirs = statistics.median(peer["us"])
            columns = store.online(service, asked).columns()
            same = all(columns[name] == peer["answer"][name] for name in view.feature_names)
            print(
                f"in process, {keys} x {len(view.columns)}: ours {ours:.1f} us, raw {raw:.1f} us, Feast {theirs:.0f} us"
            )
            print(f"  ours / raw {over:.2f} (bar {most}), Feast / ours {theirs / ours:.0f} (bar {least}), {told(same)}")
            good = good and same and over <= most and theirs / ours >= least
    return good


def told(same: bool) -> str:
    return f"answers {'agree' if same else 'DIFFER'}"


# -- HTTP -------------------------------------------------------------------------------------------------------------


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def spent_by(pid: int) -> float:
    """CPU seconds of a process tree."""
    total = 0.0
    for one in tree(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) / HZ
    return total


async def asked(port: int, request: bytes, count: int, connections: int) -> bytes:
    """Send a request over keep-alive connections; the body of the last answer, all of which are 200."""
    body = b""

    async def connection() -> None:
        nonlocal body
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(count // connections):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.close()

    await asyncio.gather(*(connection() for _ in range(connections)))
    return body


@contextmanager
def serving(command: list[object], folder: Path, port: int, path: str) -> Iterator[int]:
    """A server until it is no longer needed; its process id."""
    environment = os.environ | {"FEAST_USAGE": "False"}
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([str(word) for word in command], cwd=folder, env=environment, **streams)
    try:
        for _ in range(600):
            probe = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                probe.request("GET", path)
                if probe.getresponse().status < 500:
                    break
            except OSError:
                time.sleep(0.2)
            finally:
                probe.close()
            if server.poll() is not None:
                raise RuntimeError(f"{command[:4]} ended with {server.returncode}")
        else:
            raise RuntimeError(f"{command[:4]} did not start")
        yield server.pid
    finally:
        server.terminate()
        server.wait(timeout=60)


def serve_raw(folder: Path, port: int) -> None:
    """The raw ASGI handler: parse, read, decode, and write what our server writes, on uvicorn's fast parts."""
    _, _, wide = an_app()
    view = view_of(wide)
    (pack, read), names = raw_reader(folder, 2, view), list(view.feature_names)

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        status, answer = 200, b"{}"
        if scope["method"] == "POST":
            body = message["body"]
            while message.get("more_body"):
                message = await receive()
                body += message["body"]
            found = read(pack(orjson.loads(body)["entities"]["user"]))
            told = {"status": {"wide": "P" * len(found)}, "event_us": {"wide": [NOW] * len(found)}}
            answer = orjson.dumps({"names": names, "rows": found, **told})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    uvicorn.run(
        handler, port=port, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="error"
    )


def over_http(folder: Path) -> bool:
    users = [f"user{index:06d}" for index in range(MANY)]
    ours, raw, peer = free_port(), free_port(), free_port()
    command = [sys.executable, "-m", "mainspring.cli", "serve", "--port", ours]
    feasts = [feast_python().parent / "feast", "serve", "--no-access-log", "--port", peer]
    own = post("/feature-services/many/read", {"entities": {"user": users}})
    wire = post("/get-online-features", {"feature_service": "many", "entities": {"user": users}})
    wire = wire.replace(b"host: x\r\n", b"host: x\r\ncontent-type: application/json\r\n")
    spent: dict[str, list[float]] = {}
    bodies = {}
    with (
        serving(command, folder, ours, "/v2/health/ready") as first,
        serving([sys.executable, __file__, "--serve-raw", folder, raw], folder, raw, "/") as second,
        serving(feasts, folder / "feast", peer, "/health") as third,
    ):
        sides = (("ours", first, ours, own, 1_600), ("raw", second, raw, own, 1_600), ("Feast", third, peer, wire, 32))
        for number in range(ROUNDS + 1):
            for connections in (1, 16):
                for name, pid, port, request, count in sides:
                    before = spent_by(pid)
                    bodies[name] = asyncio.run(asked(port, request, count, connections))
                    if number:  # the first round warms caches
                        took = (spent_by(pid) - before) / count * 1e6
                        spent.setdefault(f"{name} {connections}", []).append(took)
    answers = {name: json.loads(body) for name, body in bodies.items()}
    theirs = answers["Feast"]
    columns = dict(zip(theirs["metadata"]["feature_names"], (one["values"] for one in theirs["results"]), strict=True))
    listed = [list(row) for row in zip(*(columns[name] for name in answers["ours"]["names"]), strict=True)]
    same = answers["ours"]["rows"] == answers["raw"]["rows"] == listed
    good = same
    for connections in (1, 16):
        mine, floor, peers = (spent[f"{name} {connections}"] for name in ("ours", "raw", "Feast"))
        over = statistics.median(a / b for a, b in zip(mine, floor, strict=True))
        times = statistics.median(peers) / statistics.median(mine)
        costs = ", ".join(f"{name} {statistics.median(spent[f'{name} {connections}']):.0f} us" for name, *_ in sides)
        print(f"HTTP, 100 x 50, {connections} connections: {costs}")
        print(f"  ours / raw {over:.2f} (bar 1.3), Feast / ours {times:.0f} (bar 50), {told(same)}")
        good = good and over <= 1.3 and times >= 50
    return good


# -- materialisation --------------------------------------------------------------------------------------------------


class Peak(threading.Thread):
    """The most memory of its own that this process has had, in MiB, looked at again and again."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mib = 0.0
        self.start()

    def run(self) -> None:
        while True:
            status = Path("/proc/self/status").read_text()
            self.mib = max(self.mib, int(status.split("RssAnon:")[1].split()[0]) / 1024)
            time.sleep(0.01)


def bring(folder: Path) -> None:
    """Write a view's rows to an empty store in this process, and print what it took."""
    shutil.rmtree(folder / ".mainspring" / "online")
    with feature_store(folder) as store:
        peak, began, spent = Peak(), time.perf_counter(), cpu()
        done = store.materialise("narrow")
        took = {"wall": time.perf_counter() - began, "cpu": cpu() - spent}
        whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**took, "own": peak.mib, "memory": whole, "entities": done.entities}))


def materialise(folder: Path) -> bool:
    speeds, own, same = {}, [], False
    for each, rows in enumerate(SIZES):
        place = folder / f"rows{rows}"
        place.mkdir()
        for name in WIDTHS:
            pq.write_table(rows_of(name, rows if name == "narrow" else 10, rows), place / f"{name}.parquet")
        make_ours(place)
        ours = json.loads(run([sys.executable, __file__, "--bring", str(place)], place))
        assert ours["entities"] == rows, ours
        sides = {"ours": ours}
        own.append(ours["own"])
        if each == 0:
            make_feast(place)
            sides["Feast"] = feast(place, "materialise", "narrow", rows)
            with feature_store(place) as store:
                columns = store.online("few", [{"user": f"user{index:06d}"} for index in range(MANY)]).columns()
            peer = feast(place, "few", MANY, 1, 1)["answer"]
            same = all(columns[name] == peer[name] for name in columns)
        for name, cost in sides.items():
            speeds.setdefault(name, rows / cost["cpu"])
            alone = f", {cost['own']:.0f} of its own" if "own" in cost else ""
            print(
                f"materialise {rows:,} rows x 20, {name}: {rows / cost['cpu']:,.0f} rows a CPU second, "
                f"wall {cost['wall']:.1f} s, {cost['memory']:.0f} MiB{alone}",
                flush=True,
            )
        shutil.rmtree(place)
    times, growth = speeds["ours"] / speeds["Feast"], own[2] / own[1]
    print(f"  ours / Feast {times:.1f} (bar 20), memory of 3 times the rows {growth:.2f} x (bar 1.2), {told(same)}")
    return same and times >= 20 and growth <= 1.2


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", choices=["online", "http", "materialise", []])
    parser.add_argument("--serve-raw", nargs=2)
    parser.add_argument("--bring", type=Path)
    given = parser.parse_args()
    if given.serve_raw:
        serve_raw(Path(given.serve_raw[0]), int(given.serve_raw[1]))
        return 0
    if given.bring:
        bring(given.bring)
        return 0
    wanted = given.what or ["online", "http", "materialise"]
    good = True
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if {"online", "http"} & set(wanted):
            for name in WIDTHS:
                pq.write_table(rows_of(name, ENTITIES, ENTITIES), folder / f"{name}.parquet")
            make_ours(folder)
            make_feast(folder)
            feast(folder, "materialise", ",".join(WIDTHS), ENTITIES)
            raw_store(folder)
        for name, measure in (("online", online), ("http", over_http), ("materialise", materialise)):
            good = (measure(folder) if name in wanted else True) and good
    print("met" if good else "NOT met")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
