"""A serving process that is pushed to, of tests/contract/test_online_is_offline.py; it is killed in the midst of it.

python program_pusher.py JSON, an object of the arguments of `main`: each line on stdout is a request that was
acknowledged, and how many rows it had.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.adapters.lmdb.online_store import open_store as open_lmdb
from mainspring.adapters.lmdb.settings import LmdbSettings
from mainspring.adapters.postgres.online_store import open_store as open_postgres
from mainspring.adapters.postgres.settings import PostgresSettings
from mainspring.adapters.redis.online_store import open_store as open_redis
from mainspring.adapters.redis.settings import RedisSettings
from mainspring.features.logs.ingest import prepare_rows
from mainspring.ports.online import OnlineStore
from mainspring.server.features import pushing
from mainspring.serving.telemetry import Metrics
from unit.features.online.test_corrections import LOOSE, NAMED, VIEWS, rows

NAMES = ("a", "b", "e\u0301", None)
SETTINGS = {
    "features.ack": "wal",
    "features.commit_every": 0.02,
    "features.commit_rows": 7,
    "features.wal_bytes": 1 << 28,
}


def store_at(kind: str, place: str) -> OnlineStore:
    """A store of one of the kinds; `place` is a folder, or ``URL PREFIX``, or a URL."""
    if kind == "lmdb":
        return open_lmdb(LmdbSettings(map_size=1 << 26), Path(place))
    if kind == "redis":
        url, prefix = place.split(" ")
        return open_redis(RedisSettings(url, prefix=prefix), Path("/nowhere"))
    return open_postgres(PostgresSettings(place), Path("/nowhere"))


def main(tables: str, store: list[str], source: str, now: int, seed: int, run: str) -> None:
    """Push for ever, as a server does: into the log, online, and by a thread into the tables."""
    pushing.now_us = lambda: now  # the program's clock
    said = LOOSE if source == "loose" else NAMED
    services = SimpleNamespace(
        tables=open_tables(DeltaSettings(), Path(tables)),
        online=store_at(*store),
        settings=SimpleNamespace(text=SETTINGS.get, number=SETTINGS.get, whole=SETTINGS.get),
    )
    views = {view.name: view for view in VIEWS[source]}
    metrics = Metrics(Path(tables).parent / f"{run}.metrics")
    server = pushing.Pushing(services, "test", {source: said}, views, {source: ()}, metrics, lambda *_, **__: None)
    server.start()
    chance = random.Random(seed)
    for turn in range(sys.maxsize):
        request, count = f"{run}-{turn}", chance.randint(1, 4)
        given = [
            (chance.choice(NAMES), float(chance.randint(-3, 9)), chance.randint(600, 1040), f"{request}-{place}")
            for place in range(count)
        ]
        server.take(source, prepare_rows(said, rows(*given)), now, request)
        os.write(1, f"{request} {count}\n".encode())


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
