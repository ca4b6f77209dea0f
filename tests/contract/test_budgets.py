"""Every budget store, on real servers, against the one contract."""

import itertools
from pathlib import Path

import pytest

from mainspring.adapters.postgres.budgets import open_budgets as open_postgres
from mainspring.adapters.postgres.health import health as postgres_health
from mainspring.adapters.postgres.settings import PostgresSettings
from mainspring.adapters.redis.budgets import open_budgets as open_redis
from mainspring.adapters.redis.health import health as redis_health
from mainspring.adapters.redis.settings import RedisSettings
from mainspring.errors import ServiceError
from mainspring.testing.budgets import BudgetStoreContract, want

NUMBERS = itertools.count()


class TestRedis(BudgetStoreContract):
    @pytest.fixture
    def opening(self, redis_url):
        opened, prefix = [], f"budgets{next(NUMBERS)}:"

        def open_one():
            opened.append(open_redis(RedisSettings(redis_url, prefix=prefix), Path("/nowhere")))
            return opened[-1]

        yield open_one
        for store in opened:
            store.close()

    def test_it_says_that_it_answers(self, store):
        assert redis_health(store) == {"answers": True}

    def test_one_that_is_not_there_is_told(self):
        store = open_redis(RedisSettings("redis://127.0.0.1:1", connect_timeout=0.5), Path("/nowhere"))
        with pytest.raises(ServiceError) as caught:
            store.draw([want()])
        assert caught.value.code == "MS-4210"
        assert "budgets.url" in caught.value.fix


class TestPostgres(BudgetStoreContract):
    @pytest.fixture
    def opening(self, postgres_url):
        opened = []

        def open_one():
            opened.append(open_postgres(PostgresSettings(postgres_url, connections=4), Path("/nowhere")))
            return opened[-1]

        with open_one().database.connection() as connection:
            connection.execute("truncate llm_budget, llm_places")
        yield open_one
        for store in opened:
            store.close()

    def test_it_says_that_it_answers(self, store):
        assert postgres_health(store) == {"answers": True}

    def test_old_counters_are_swept(self, store):
        for number in range(5):
            store.draw([want(f"old{number}")])
        with store.database.connection() as connection:
            connection.execute("update llm_budget set ends = now() - interval '1 s'")
        store.draw([want("new")])
        with store.database.connection() as connection:
            assert connection.execute("select counter from llm_budget").fetchall() == [("new",)]

    def test_one_that_is_not_there_is_told(self):
        with pytest.raises(ServiceError) as caught:
            open_postgres(PostgresSettings("postgresql://127.0.0.1:1/x", connect_seconds=1), Path("/nowhere"))
        assert caught.value.code == "MS-4201"
