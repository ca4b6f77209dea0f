"""Kill -9 of a process that pushes and commits: no acknowledged row is lost, torn or doubled, and numbers stay.

MAINSPRING_TEST_KILLS raises the number of kills; MAINSPRING_TEST_SEED repeats the moments.
"""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.features.logs.ingest import prepare_rows
from mainspring.features.logs.log import noted
from mainspring.features.wal.commit import drain, log_of, seq_of
from mainspring.features.wal.rows import drafted

sys.path.insert(0, str(Path(__file__).parents[3]))
import pusher

KILLS = int(os.environ.get("MAINSPRING_TEST_KILLS", "10"))
SEED = int(os.environ.get("MAINSPRING_TEST_SEED", "1"))


def killed_after(folder, run, wait):
    """What two processes that were killed had acknowledged: the first and last `_seq` by request."""
    command = [sys.executable, pusher.__file__, str(folder / "tables")]
    running = {}
    for name in "ab":
        said = folder / f"{run}{name}"
        with open(said, "wb") as out, open(f"{said}.err", "wb") as err:
            running[said] = subprocess.Popen([*command, said.name, "2"], stdout=out, stderr=err)
    deadline = time.monotonic() + 60
    while not all(said.stat().st_size for said in running) and time.monotonic() < deadline:
        time.sleep(0.01)  # until both are at it
    time.sleep(wait)
    for process in running.values():
        process.kill()
    acknowledged = {}
    for said, process in running.items():
        assert process.wait(timeout=60) == -9, Path(f"{said}.err").read_text()
        for line in said.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                request, start, stop = line.split()
                acknowledged[request] = (int(start), int(stop))
    return acknowledged


def test_no_acknowledged_row_is_lost_torn_or_doubled(tmp_path):
    chance = random.Random(SEED)
    acknowledged = {}
    for kill in range(0, KILLS, 2):
        acknowledged |= killed_after(tmp_path, f"k{kill}", chance.uniform(0.0, 0.4))
    assert len(acknowledged) >= KILLS
    tables = open_tables(DeltaSettings(), tmp_path / "tables")
    again, (entry, repeated) = next(iter(acknowledged)), ask_again(tables, next(iter(acknowledged)))
    assert repeated
    assert seq_of(entry.counter) == acknowledged[again][0]
    drain(tables)
    found = tables.read(pusher.SOURCE.log).sort_by("_seq").to_pylist()
    rows = Counter((row["request"], row["place"]) for row in found)
    assert {row: count for row, count in rows.items() if count > 1} == {}
    held = {}
    for row in found:
        held.setdefault(row["request"], []).append((row["place"], row["_seq"]))
    for request, (start, stop) in acknowledged.items():
        count = 1 + int(request.rpartition("-")[2]) % 3
        assert [place for place, _ in held[request]] == list(range(count)), request
        assert (held[request][0][1], held[request][-1][1]) == (start, stop), request
    for request, parts in held.items():  # what was not acknowledged is there whole, or not at all
        assert len(parts) == 1 + int(request.rpartition("-")[2]) % 3, request
    aside = Counter(tables.read(pusher.SOURCE.quarantine, columns=["request"]).column("request").to_pylist())
    assert set(aside.values()) == {1}
    assert set(aside) == set(held)
    versions = [noted(pusher.SOURCE.log, commit) for commit in tables.commits(pusher.SOURCE.log)]
    throughs = [version.through for version in reversed(versions) if version is not None]
    assert throughs == sorted(throughs)
    print(f"{KILLS} kills, {len(acknowledged)} acknowledged requests, {len(found)} rows, {len(versions)} commits")


def ask_again(tables, request):
    log = log_of(tables, pusher.SOURCE)
    count = 1 + int(request.rpartition("-")[2]) % 3
    prepared = prepare_rows(pusher.SOURCE, pusher.rows(request, count))
    try:
        return log.append(drafted(pusher.SOURCE, prepared, pusher.NOW, request))
    finally:
        log.close()
