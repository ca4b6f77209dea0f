"""Kill -9 of driver, zygote or worker, anywhere in the demo's own pipeline on real flights; the same command goes on.

MAINSPRING_THOROUGH or MAINSPRING_TEST_KILLS raise the number of kills; MAINSPRING_TEST_SEED repeats the choices.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lmdb
import polars as pl
import pytest

from mainspring.choose.services import Services
from mainspring.engine.workers.processes import children
from thoroughly import rounds

FLIGHTS = Path(__file__).resolve().parents[2] / "examples" / "flights"
VICTIMS = ("driver", "driver at work", "driver at work", "zygote", "worker")
KILLS = int(os.environ.get("MAINSPRING_TEST_KILLS") or rounds(len(VICTIMS), 10 * len(VICTIMS)))
SEED = int(os.environ.get("MAINSPRING_TEST_SEED", "1"))
UNTIL = datetime(2013, 1, 15, tzinfo=UTC)
LATEST_S = 3.0
TELL_WHAT_THEY_DID = ("online/", "version/")
"""Steps whose results name the version they made, or count what was left to write."""


def new_project(folder: Path, source: Path) -> Path:
    shutil.copytree(source, folder)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The flights project with two weeks of its data, not built."""
    sys.path.insert(0, str(FLIGHTS))
    try:
        import data
    finally:
        sys.path.remove(str(FLIGHTS))
    folder = tmp_path_factory.mktemp("flights") / "project"
    (folder / "data").mkdir(parents=True)
    for name in ("flights.py", "mainspring.toml"):
        shutil.copyfile(FLIGHTS / name, folder / name)
    for name, time_column in (("flights", "departed"), ("weather", "observed"), ("planes", "since")):
        rows = data.READERS[name](data.package_folder())
        rows.filter(pl.col(time_column) < UNTIL).write_parquet(folder / "data" / f"{name}.parquet")
    return folder


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mainspring.cli", "apply", "--json"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def digests(out: str) -> dict[str, str]:
    steps: list[dict[str, Any]] = json.loads(out)["steps"]
    return {step["name"]: step["outputs"] for step in steps if not step["name"].startswith(TELL_WHAT_THEY_DID)}


def kept(folder: Path) -> dict[str, object]:
    """What a user would look at afterwards: the rows of tables, the models, the bytes of the online store."""
    services = Services.of_project(folder)
    try:
        found: dict[str, object] = {name: services.tables.read(name).num_rows for name in services.tables.tables()}
        models = services.catalog.entities("model")
        found["models"] = [(model.name, model.version, model.spec["artifact"]) for model in models]
        champion = services.catalog.alias("model", "late", "champion")
        found["champion"] = champion is not None and champion.entity_id == models[0].id
    finally:
        services.close()
    with lmdb.open(str(folder / ".mainspring" / "online"), readonly=True) as store, store.begin() as transaction:
        # The marks say when the logs were made, too.
        found["online"] = [pair for pair in transaction.cursor() if not bytes(pair[0]).startswith(b"\xff\xff\xff\xff")]
    return found


def plan(random_: random.Random) -> Iterator[tuple[str, float]]:
    """What to kill and when, without end: each five times every victim, and moments of every fifth of the time."""
    while True:
        moments = [(fifth + random_.random()) / len(VICTIMS) * LATEST_S for fifth in range(len(VICTIMS))]
        yield from zip(random_.sample(VICTIMS, len(VICTIMS)), random_.sample(moments, len(moments)), strict=True)


def there(process: subprocess.Popen[str], victim: str) -> list[int]:
    zygotes = children(process.pid)
    workers = [pid for zygote in zygotes for pid in children(zygote)]
    at_work = [process.pid] if workers else []
    return {"driver": [process.pid], "driver at work": at_work, "zygote": zygotes, "worker": workers}[victim]


def wait_for(process: subprocess.Popen[str], victim: str) -> list[int]:
    """The processes to choose from as soon as there is one; none when the run has ended first."""
    found: list[int] = []
    while process.poll() is None and not found:
        time.sleep(0.01)
        found = there(process, victim)
    return found


def disturb(folder: Path, victim: str, moment: float, random_: random.Random) -> str:
    """One run of which something is killed after a while; what it was, or nothing when it had finished before."""
    process = start(folder)
    wait_for(process, victim)  # how long a start takes says how busy the machine is
    time.sleep(moment)
    found = wait_for(process, victim)
    hit = bool(found) and process.poll() is None
    if hit:
        try:
            os.kill(random_.choice(found), signal.SIGKILL)
        except ProcessLookupError:
            hit = False
    finish(process)
    return victim if hit else ""


def check(folder: Path, expected: dict[str, str], seen: dict[str, object]) -> None:
    code, out, err = finish(start(folder))
    assert code == 0, err
    assert digests(out) == expected
    assert kept(folder) == seen
    services = Services.of_project(folder)
    try:
        runs = services.catalog.runs(limit=1000)
        rows = [row for run in runs for row in services.catalog.steps(run.id)]
        finished = Counter((row.name, row.cache_key) for row in rows if row.status == "ok")
        assert [row for row in rows if row.status == "ok" and finished[row.name, row.cache_key] > 1] == []
        assert not [row for row in rows if row.status == "running"]
        assert not [run for run in runs if run.status == "running"]
    finally:
        services.close()


def test_any_kill_leaves_a_pipeline_that_the_same_command_finishes(source: Path, tmp_path: Path) -> None:
    undisturbed = new_project(tmp_path / "undisturbed", source)
    code, out, err = finish(start(undisturbed))
    assert code == 0, err
    expected, seen = digests(out), kept(undisturbed)
    assert len(expected) == 10
    assert any(name.startswith("source/flights/") and seen[name] == 12_073 for name in seen)
    assert seen["online"]
    random_ = random.Random(SEED)
    killed: Counter[str] = Counter()
    planned, case = plan(random_), 0
    while killed.total() < KILLS or set(killed) != set(VICTIMS):
        case += 1
        folder = new_project(tmp_path / f"case{case}", source)
        kills = len(VICTIMS) if case == 1 else random_.randint(1, 2 * len(VICTIMS))
        trail = [disturb(folder, *next(planned), random_) for _ in range(kills)]
        killed.update(filter(None, trail))
        try:
            check(folder, expected, seen)
        except AssertionError as error:
            error.add_note(f"case {case} of seed {SEED}, after {trail}")
            raise
        shutil.rmtree(folder)
    print(f"{killed.total()} kills in {case} projects: {dict(killed)}")
