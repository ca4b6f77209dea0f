"""A process that pushes for ever and says what was acknowledged; killed by tests/unit/features/wal/test_kill.py.

python pusher.py FOLDER RUN THREADS: each line on stdout is a request's id and the first and last `_seq` of its rows.
"""

from __future__ import annotations

import os
import sys
import threading
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.declare.app import App
from mainspring.declare.record import Field, Record
from mainspring.features.logs.ingest import prepare_rows
from mainspring.features.logs.log import source_of
from mainspring.features.wal import log as wal_log
from mainspring.features.wal.commit import commit_waiting, drain, log_of, retire, seq_of
from mainspring.features.wal.rows import drafted

NOW = 1_700_000_000_000_000


class Reading(Record):
    request: str
    place: int = Field(le=1000)
    at: datetime


SOURCE = source_of(App("kills").source(Reading, time="at", called="readings"))


def rows(request: str, count: int) -> pa.Table:
    """Some rows of a request; one more is set aside."""
    return pa.table(
        {
            "request": [request] * (count + 1),
            "place": [*range(count), 2000],
            "at": pa.array([NOW] * (count + 1), pa.int64()).cast(pa.timestamp("us", "UTC")),
        }
    )


def main(folder: str, run: str, threads: int) -> None:
    """Push from several threads, while one brings everything into the tables."""
    wal_log._ROLL, wal_log._SMALL = 20_000, 2_000  # so that segments come and go under the kill
    tables = open_tables(DeltaSettings(), Path(folder))
    drain(tables)
    log = log_of(tables, SOURCE)

    def push(number: int) -> None:
        turn = 0
        while True:
            request = f"{run}-{number}-{turn}"
            count = 1 + turn % 3
            entry, _ = log.append(drafted(SOURCE, prepare_rows(SOURCE, rows(request, count)), NOW, request))
            said = f"{request} {seq_of(entry.counter)} {seq_of(entry.counter + entry.rows - 1)}\n"
            os.write(1, said.encode())
            turn += 1

    for number in range(threads):
        threading.Thread(target=push, args=(number,), daemon=True).start()
    while True:
        with tables.writing(SOURCE.log):
            commit_waiting(tables, log)
            retire(tables, log)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
