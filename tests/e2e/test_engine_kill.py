"""Kill -9 of driver, zygote or worker at any point: the same command finishes with the same results.

MAINSPRING_TEST_KILLS raises the number of kills; MAINSPRING_TEST_SEED repeats a failure.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from engine_bench import BenchServices
from mainspring.engine.workers.processes import children

HERE = Path(__file__).resolve().parent.parent
KILLS = int(os.environ.get("MAINSPRING_TEST_KILLS", "30"))
SEED = int(os.environ.get("MAINSPRING_TEST_SEED", "1"))
POINTS = ("blob.written", "blob.fsynced", "blob.renamed", "tx.begin", "tx.committed")


def start(folder, fault=""):
    return subprocess.Popen(
        [sys.executable, str(HERE / "engine_driver.py"), str(folder), "--fault", fault],
        env={**os.environ, "PYTHONPATH": str(HERE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return process.returncode, out


def digests(out):
    return {line.split()[0]: line.split()[2] for line in out.splitlines()}


def kill_something(process, choice, delay):
    """Kill the driver, its zygote or one of its workers after a while; whether there was one."""
    deadline = time.monotonic() + delay
    victim = 0
    while process.poll() is None and (time.monotonic() < deadline or not victim):
        zygotes = children(process.pid)
        workers = [pid for zygote in zygotes for pid in children(zygote)]
        found = {"driver": [process.pid], "zygote": zygotes, "worker": workers}[choice]
        victim = found[0] if found else 0
        if time.monotonic() >= deadline + 5:
            break
    if not victim or process.poll() is not None:
        return False
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    code, out = finish(start(tmp_path_factory.mktemp("undisturbed")))
    assert code == 0
    return digests(out)


def disturb(folder, random_):
    """One run that is killed somewhere; what was killed, or None when it was finished first."""
    choice = random_.choice(("fault", "fault", "driver", "driver", "zygote", "worker"))
    if choice == "fault":
        point = f"{random_.choice(POINTS)}:{random_.randint(1, 12)}"
        code, _ = finish(start(folder, point))
        return point if code else None
    process = start(folder)
    hit = kill_something(process, choice, random_.uniform(0.1, 0.35))
    finish(process)
    return choice if hit else None


def check(folder, expected):
    """Results as undisturbed, every blob whole, and nothing that was finished has been computed again."""
    code, out = finish(start(folder))
    assert code == 0
    assert digests(out) == expected
    services = BenchServices(str(folder))
    try:
        rows = [row for run in services.catalog.runs(limit=1000) for row in services.catalog.steps(run.id)]
        finished = Counter(row.cache_key for row in rows if row.status == "ok")
        assert finished
        assert {key: count for key, count in finished.items() if count > 1} == {}
        assert not [row for row in rows if row.status == "running"]
        for blob in services.objects.sizes():
            if len(blob.digest) == 40:
                services.objects.get(blob.digest)
        assert not [run for run in services.catalog.runs(limit=1000) if run.status == "running"]
    finally:
        services.close()


def test_any_kill_leaves_a_run_that_the_same_command_finishes(tmp_path, undisturbed):
    random_ = random.Random(SEED)
    killed = Counter()
    case = 0
    while killed.total() < KILLS:
        case += 1
        folder = tmp_path / f"case{case}"
        trail = []
        for _ in range(random_.randint(1, 5)):
            trail.append(disturb(folder, random_))
        killed.update(what.partition(":")[0] for what in trail if what)
        try:
            check(folder, undisturbed)
        except AssertionError as error:
            error.add_note(f"case {case} of seed {SEED}, after {trail}")
            raise
    assert {"driver", "worker", "tx.begin", "tx.committed"} <= set(killed)


def test_a_dead_drivers_workers_die_with_it(tmp_path):
    process = start(tmp_path)
    workers = []
    while not workers and process.poll() is None:
        workers = [pid for zygote in children(process.pid) for pid in children(zygote)]
    assert workers
    everybody = [*children(process.pid), *workers]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    for _ in range(6000):
        if not any(alive(pid) for pid in everybody):
            return
        time.sleep(0.01)
    raise AssertionError(f"{everybody} outlived their driver")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False
