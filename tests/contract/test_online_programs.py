"""Online is offline after each step of random programs on the stores that are servers; LMDB's are in `test_newest`."""

import itertools
import random
from pathlib import Path

import pytest

from mainspring.adapters.postgres.online_store import open_store as open_postgres
from mainspring.adapters.postgres.settings import PostgresSettings
from mainspring.adapters.redis.online_store import open_store as open_redis
from mainspring.adapters.redis.settings import RedisSettings
from mainspring.features.online import chunks
from unit.features.online.test_newest import Project, a_program

NUMBERS = itertools.count()


@pytest.fixture(params=["redis", "postgres"])
def opening(request):
    url, prefix = request.getfixturevalue(f"{request.param}_url"), f"programs{next(NUMBERS)}:"
    if request.param == "redis":
        return lambda: open_redis(RedisSettings(url, prefix=prefix), Path("/nowhere"))
    store = open_postgres(PostgresSettings(url), Path("/nowhere"))
    store.drop(b"")  # it has one table, whoever used it before
    store.close()
    return lambda: open_postgres(PostgresSettings(url), Path("/nowhere"))


@pytest.mark.parametrize("size", ["few", "many"])
@pytest.mark.parametrize("name", ["all", "deleted"])
def test_whatever_comes_online_is_offline(tmp_path, monkeypatch, opening, name, size):
    if size == "many":
        for limit, value in {"CHUNK": 4, "TAIL": 8, "GROUP": 3}.items():
            monkeypatch.setattr(chunks, limit, value)
    project = Project(tmp_path, name, opening)
    a_program(project, random.Random(f"{name} {size}"), 10)
    project.store.close()
    assert min(project.seen[status] for status in ("MISSING", "PRESENT", "EXPIRED")) > 5
