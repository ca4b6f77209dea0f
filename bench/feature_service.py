"""Feature services: reads in process against a raw get and decode, and over ASGI against a raw handler of that work.

Bars: in process 1 x 20 <= 2.5x raw get + decode, 100 x 50 <= 2x; over HTTP 100 x 50 <= 1.3x a raw ASGI handler that
parses the same body, reads, decodes and writes the same answer. CPU time, both sides in paired rounds, no socket in
between: what uvicorn and the kernel cost is the same for both and would only blur the difference.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import numpy as np
import orjson
import pyarrow as pa

from mainspring.adapters.lmdb.online_store import LmdbStore
from mainspring.declare.aggregate import Aggregate, Function
from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.features.online.keys import column_packer, key_packer
from mainspring.features.online.service import ServedFeatures
from mainspring.features.online.write import upsert
from mainspring.features.selection import Output, Selection
from mainspring.features.view import FeatureDef, View, log_schema, pick
from mainspring.protocols.http import Router
from mainspring.protocols.native.features import add_feature_routes
from mainspring.server.http.asgi import Limits, Listener

ENTITIES, ROUNDS, MANY = 10_000, 9, 100
NOW = 1_700_000_000_000_000
FLOAT = ColumnType(Kind.FLOAT, nullable=True)


class Allowed:
    """What the settings allow."""

    rows = 65_536
    replay = True


def view(number: int, width: int) -> View:
    columns = tuple(FieldSpec(f"c{i}", FLOAT) for i in range(width))
    features = tuple(FeatureDef(f"f{i}", Aggregate(Function.LAST, c.name, None), FLOAT) for i, c in enumerate(columns))
    key = FieldSpec("k", ColumnType(Kind.STRING))
    return View(number, "v", "1", (key,), None, features, columns, ("s",), "at", f"feature_view/v/{number}")


def rows(of: View) -> pa.Table:
    random = np.random.default_rng(0)
    columns: dict[str, object] = {"k": [f"e{i:06d}" for i in range(ENTITIES)]}
    columns |= {field.name: random.normal(size=ENTITIES) for field in of.columns}
    at = pa.array(NOW - random.integers(0, 86_400_000_000, ENTITIES)).cast(pa.timestamp("us", "UTC"))
    columns |= {"_event_time": at, "_ingest_time": at, "_seq": np.arange(ENTITIES), "_deleted": [False] * ENTITIES}
    columns |= {"_assumed": [True] * ENTITIES, "_hash": np.zeros(ENTITIES, np.int32), "_def": [""] * ENTITIES}
    columns |= {"_batch": [""] * ENTITIES, "_retracts": pa.nulls(ENTITIES, pa.int64())}
    return pa.table(columns).cast(log_schema(of))


def service(of: View, store: LmdbStore) -> ServedFeatures:
    outputs = tuple(Output("v", f.name, f.type, place, False) for place, f in enumerate(of.features))
    return ServedFeatures("bench", Selection((pick(of),), (), (), outputs), store, {})


def timed(action: Callable[[], object], count: int) -> float:
    began = time.process_time()
    for _ in range(count):
        action()
    return (time.process_time() - began) / count * 1e6


def compared(title: str, bar: float, ours: Callable[[], object], raw: Callable[[], object], count: int) -> bool:
    rounds = [(timed(ours, count), timed(raw, count)) for _ in range(ROUNDS)]
    mine, theirs = (statistics.median(side) for side in zip(*rounds, strict=True))
    ratio = statistics.median(a / b for a, b in rounds)
    print(f"{title}: ours {mine:.1f} us, raw {theirs:.1f} us: {ratio:.2f}x (bar {bar}x)")
    return ratio <= bar


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        store = LmdbStore(Path(folder) / "ours", 1 << 30)
        narrow, wide = view(1, 20), view(2, 50)
        raw = lmdb.open(str(Path(folder) / "raw"), map_size=1 << 28)
        encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode
        packs = {of.id: key_packer(of.id, of.keys) for of in (narrow, wide)}
        for of in (narrow, wide):
            table = rows(of)
            upsert(of, store, table, time.time_ns() // 1000)
            bodies = zip(*(table.column(c.name).to_pylist() for c in of.columns), strict=True)
            with raw.begin(write=True) as transaction:
                for number, body in enumerate(bodies):
                    transaction.put(packs[of.id]({"k": f"e{number:06d}"}), encode(body))
        few, many = service(narrow, store), service(wide, store)
        one, hundred = {"k": "e000042"}, [{"k": f"e{i:06d}"} for i in range(MANY)]
        packed, packed_many = packs[1](one), [packs[2](row) for row in hundred]

        def raw_one() -> object:
            with raw.begin() as transaction:
                return decode(transaction.get(packed))

        def raw_many() -> object:
            with raw.begin() as transaction:
                return [decode(transaction.get(key)) for key in packed_many]

        plan, wide_plan = few._plan, many._plan
        print(f"CPU us, median of {ROUNDS} paired rounds")
        met = compared("in process, 1 x 20", 2.5, lambda: plan.read_one(one, NOW), raw_one, 4000)
        met &= compared("in process, 100 x 50", 2, lambda: wide_plan.read_rows(hundred, NOW), raw_many, 60)
        columns = {"k": [row["k"] for row in hundred]}
        met &= compared("in process, 100 x 50 as Rows", 2, lambda: many.read(columns, {}, NOW), raw_many, 60)
        router = Router()
        add_feature_routes(router, lambda: {"bench": many}, Allowed(), lambda: NOW, asyncio.to_thread)
        listener = Listener(router, Limits(1 << 23, 30.0))
        body = orjson.dumps({"entities": columns})
        names, pack = list(many.names), column_packer(wide.id, wide.keys[0])

        async def by_hand(scope: Any, receive: Any, send: Any) -> None:
            asked = orjson.loads((await receive())["body"])
            keys = pack(asked["entities"]["k"])
            with raw.begin() as transaction:
                found = [decode(transaction.get(key)) for key in keys]
            status, moments = {"v": "P" * len(found)}, {"v": [NOW] * len(found)}
            answer = orjson.dumps({"names": names, "rows": found, "status": status, "event_us": moments})
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": answer})

        with asyncio.Runner() as runner:
            loop = runner.get_loop()

            def over(app: Callable[..., Awaitable[None]]) -> Callable[[], object]:
                return lambda: loop.run_until_complete(_asked(app, body))

            met &= compared("over ASGI, 100 x 50", 1.3, over(listener), over(by_hand), 60)
        raw.close()
        store.close()
        return int(not met)


async def _asked(app: Callable[..., Awaitable[None]], body: bytes) -> bytes:
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/feature-services/bench/read",
        "raw_path": b"/feature-services/bench/read",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
        "client": ("127.0.0.1", 1),
    }
    sent: list[Any] = []
    waiting: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return waiting.pop() if waiting else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["status"] == 200, sent
    return b"".join(message.get("body", b"") for message in sent[1:])


if __name__ == "__main__":
    sys.exit(main())
