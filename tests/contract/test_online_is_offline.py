"""Random programs on every online store: after each step, crash and restart, online is offline.

Steps are files that say something new, correct or take away; pushes, late ones and such of the future; tables put in
order; the store lost and filled again; deaths between the table and the store, and in the midst of a write to the
store, after which another process opens it; and kill -9 of a serving process that is pushed to and commits, after which
what it had acknowledged is there once, and what it had not, whole or not at all.

MAINSPRING_TEST_STEPS makes the programs longer, MAINSPRING_TEST_SEED makes others.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import program_pusher
from mainspring.features.logs.tidy import tidy
from mainspring.features.wal.commit import drain
from unit.features.online.test_corrections import LOOSE, NAMED, NOW, SECOND, Project

CUSTOMERS = ("a", "b", "e\u0301", None)
STEPS = int(os.environ.get("MAINSPRING_TEST_STEPS", "12"))
"""Each of the ten kinds once, and the rest by chance."""


class Died(Exception):  # noqa: N818 - it is no error of the store's
    """The process that wrote is no more."""


class Mortal:
    """A store whose process dies at its next write but some."""

    def __init__(self, store, left):
        self._store, self._left = store, left

    def _write(self, name, *given):
        if self._left == 0:
            raise Died
        self._left -= 1
        return getattr(self._store, name)(*given)

    def put_newer(self, rows):
        rows = list(rows)
        if self._left == 0 and rows:  # the last write is half done
            self._store.put_newer(rows[: len(rows) // 2])
        return self._write("put_newer", rows)

    def swap(self, *given):
        return self._write("swap", *given)

    def delete(self, keys):
        return self._write("delete", list(keys))

    def __getattr__(self, name):
        return getattr(self._store, name)


@pytest.fixture(params=["lmdb", "redis", "postgres"])
def place(request, tmp_path):
    """The store's kind and place, for any process."""
    if request.param == "lmdb":
        return "lmdb", str(tmp_path / "kept")
    url = request.getfixturevalue(f"{request.param}_url")
    return request.param, f"{url} {tmp_path.name}:" if request.param == "redis" else url


@pytest.fixture
def opening(place):
    opened = []

    def open_one():
        opened.append(program_pusher.store_at(*place))
        return opened[-1]

    def close():
        for store in opened:
            store.close()
        opened.clear()

    open_one().drop(b"")
    open_one.close, open_one.place = close, place
    yield open_one
    close()


class Program:
    """A project, what its files say, and a clock."""

    def __init__(self, place, source, opening, seed):
        self.chance = random.Random(seed)
        self.project = Project(place, source)
        self.project.store.close()
        self.opening, self.place = opening, place
        self.kills = self.acknowledged = 0
        self.restart()
        self.now = NOW
        self.filed = []
        self.number = 0

    def restart(self):
        self.project.store = self.opening()

    def rows(self, most, first=880, last=1000):
        self.number += most
        return [
            (
                self.chance.choice(CUSTOMERS),
                self.chance.choice([None, float(self.chance.randint(-3, 9))]),
                self.chance.randint(first, last),
                str(self.number - place),
            )
            for place in range(self.chance.randint(1, most))
        ]

    def more_files(self):
        self.filed = [*self.filed, *self.rows(6)]
        self.project.read_files(*self.filed, now=self.now)
        self.project.publish(self.now)

    def corrected_files(self):
        kept = [row for row in self.filed if self.chance.random() < 0.8]
        self.filed = [(row[0], 7.0, *row[2:]) if self.chance.random() < 0.3 else row for row in kept]
        if self.filed:
            self.project.read_files(*self.filed, now=self.now)
            self.project.publish(self.now)

    def push(self):
        self.project.push(*self.rows(4), now=self.now)

    def late_push(self):
        self.project.push(*self.rows(3, 300, 900), now=self.now)

    def future_push(self):
        self.project.push(*self.rows(2, 1010, 1040), now=self.now)

    def put_in_order(self):
        for log in (self.project.source.log, *(view.log for view in self.project.views)):
            tidy(self.project.tables, log, dict, now_us=self.now)

    def lose_the_store(self):
        self.project.store.drop(b"")
        self.project.publish(self.now)

    def die(self):
        store = self.project.store
        self.project.store = Mortal(store, self.chance.randint(0, 3))
        with contextlib.suppress(Died):
            self.chance.choice([self.push, self.late_push, self.more_files, self.lose_the_store])()
        self.restart()
        self.project.publish(self.now)

    def kill(self):
        """Kill -9 of a process that is pushed to, at some moment of its work; another one goes on where it was."""
        self.opening.close()
        self.kills += 1
        acknowledged = self.killed()
        self.restart()
        tables, source = self.project.tables, self.project.source
        drain(tables)
        self.project.publish(self.now)
        names = tables.read(source.log, columns=["number"]).column("number").to_pylist()
        rows = Counter(name for name in names if name.startswith(f"k{self.kills}-"))
        assert {name: count for name, count in rows.items() if count > 1} == {}, "doubled"
        held = Counter(name.rpartition("-")[0] for name in rows)
        assert {request: held[request] for request in acknowledged} == acknowledged, "lost or torn"
        assert len(held) <= len(acknowledged) + 1, "one request at most was under way"
        self.acknowledged += len(acknowledged)

    def killed(self):
        """What a process had acknowledged when it was killed: how many rows, by request."""
        given = {
            "tables": str(self.place / "tables"),
            "store": self.opening.place,
            "source": self.project.source.name,
            "now": self.now,
            "seed": self.chance.randrange(1 << 30),
            "run": f"k{self.kills}",
        }
        command, env = [sys.executable, program_pusher.__file__, json.dumps(given)], dict(os.environ)
        env["PYTHONPATH"] = str(Path(program_pusher.__file__).parent)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
            first = process.stdout.readline()
            time.sleep(self.chance.uniform(0, 0.3))
            process.kill()
            lines = [first, *process.stdout.read().splitlines(keepends=True)]
            assert first, process.stderr.read().decode()
        told = [line.decode().split() for line in lines if line.endswith(b"\n")]
        return {request: int(count) for request, count in told}

    def agrees(self):
        self.project.all_both(CUSTOMERS, self.now)


def test_after_each_step_online_is_offline(opening, tmp_path, request):
    source = LOOSE if "redis" in request.node.name else NAMED
    seed = int(os.environ.get("MAINSPRING_TEST_SEED", "4"))
    program = Program(tmp_path, source, opening, seed)
    program.more_files()
    steps = [
        program.more_files,
        program.corrected_files,
        program.push,
        program.late_push,
        program.future_push,
        program.put_in_order,
        program.lose_the_store,
        program.die,
        program.kill,
        program.restart,
    ]
    plan = [*steps, *(program.chance.choice(steps) for _ in range(STEPS - len(steps)))]
    program.chance.shuffle(plan)
    for step in plan:
        program.now += program.chance.choice([1, 1, 20]) * SECOND
        step()
        program.agrees()
    assert program.kills > 0
    assert program.acknowledged >= program.kills
