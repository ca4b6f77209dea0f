"""Random programs on every online store: after each step, crash and restart, online is offline.

Steps are files that say something new, correct or take away; pushes, late ones and such of the future; tables put in
order; the store lost and filled again; deaths between the table and the store, and in the midst of a write to the
store, after which another process opens it.

MAINSPRING_TEST_STEPS makes the programs longer, MAINSPRING_TEST_SEED makes others.
"""

import contextlib
import os
import random
from pathlib import Path

import pytest

from mainspring.adapters.lmdb.online_store import open_store as open_lmdb
from mainspring.adapters.lmdb.settings import LmdbSettings
from mainspring.adapters.postgres.online_store import open_store as open_postgres
from mainspring.adapters.postgres.settings import PostgresSettings
from mainspring.adapters.redis.online_store import open_store as open_redis
from mainspring.adapters.redis.settings import RedisSettings
from mainspring.features.tidy import tidy
from unit.features.online.test_corrections import LOOSE, NAMED, NOW, SECOND, Project

CUSTOMERS = ("a", "b", "e\u0301", None)
STEPS = int(os.environ.get("MAINSPRING_TEST_STEPS", "11"))
"""Each of the nine kinds once, and the rest by chance."""


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
def opening(request, tmp_path):
    opened = []
    if request.param == "lmdb":
        one = lambda: open_lmdb(LmdbSettings(map_size=1 << 26), tmp_path / "kept")  # noqa: E731
    elif request.param == "redis":
        url = request.getfixturevalue("redis_url")
        one = lambda: open_redis(RedisSettings(url, prefix=f"{tmp_path.name}:"), Path("/nowhere"))  # noqa: E731
    else:
        url = request.getfixturevalue("postgres_url")
        one = lambda: open_postgres(PostgresSettings(url), Path("/nowhere"))  # noqa: E731

    def open_one():
        opened.append(one())
        return opened[-1]

    open_one().drop(b"")
    yield open_one
    for store in opened:
        store.close()


class Program:
    """A project, what its files say, and a clock."""

    def __init__(self, place, source, opening, seed):
        self.chance = random.Random(seed)
        self.project = Project(place, source)
        self.project.store.close()
        self.opening = opening
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

    def agrees(self):
        for name in CUSTOMERS:
            self.project.both(name, self.now)


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
        program.restart,
    ]
    plan = [*steps, *(program.chance.choice(steps) for _ in range(STEPS - len(steps)))]
    program.chance.shuffle(plan)
    for step in plan:
        program.now += program.chance.choice([1, 1, 20]) * SECOND
        step()
        program.agrees()
