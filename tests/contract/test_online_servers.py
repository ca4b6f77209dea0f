"""The online stores that are servers, on real ones, against the one contract."""

import itertools
import threading
from pathlib import Path

import psycopg
import pytest

import redis_server
from mainspring.adapters.postgres import ONLINE as POSTGRES
from mainspring.adapters.postgres.health import health as postgres_health
from mainspring.adapters.postgres.online_store import open_store as open_postgres
from mainspring.adapters.postgres.settings import PostgresSettings
from mainspring.adapters.redis import ADAPTER as REDIS
from mainspring.adapters.redis.health import health as redis_health
from mainspring.adapters.redis.online_store import open_store as open_redis
from mainspring.adapters.redis.settings import RedisSettings
from mainspring.errors import MainspringError
from mainspring.testing.online import OnlineStoreContract, row

NUMBERS = itertools.count()


def fault(work):
    with pytest.raises(MainspringError) as caught:
        work()
    assert caught.value.fix
    return caught.value.code


class TestRedis(OnlineStoreContract):
    @pytest.fixture
    def opening(self, redis_url):
        opened, prefix = [], f"test[{next(NUMBERS)}]*:"  # what a pattern of Redis would read as one

        def open_one(**others):
            opened.append(open_redis(RedisSettings(redis_url, prefix=prefix, **others), Path("/nowhere")))
            return opened[-1]

        yield open_one
        for store in opened:
            store.close()

    def test_it_says_that_it_answers(self, opening):
        assert redis_health(opening()) == {"answers": True}
        assert (REDIS.port, REDIS.embedded, REDIS.extra) == ("online", False, "redis")

    def test_projects_share_a_server_by_their_prefix(self, redis_url, opening):
        other = open_redis(RedisSettings(redis_url, prefix="test[x"), Path("/nowhere"))
        mine = opening()
        mine.put_newer([(b"a", row(1))])
        assert (other.get_many([b"a"]), list(other.scan(b"")), other.drop(b"")) == ([None], [], 0)
        assert list(mine.scan(b"")) == [(b"a", row(1))]
        other.close()

    def test_a_batch_of_several_scripts_is_seen_whole(self, opening):
        store, keys = opening(), [b"%06d" % number for number in range(5_000)]
        store.put_newer([(key, row(0)) for key in keys])
        done = threading.Event()

        def write():
            mine = opening()
            for number in range(1, 6):
                mine.put_newer([(key, row(number)) for key in keys])
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        while not done.is_set():
            assert len(set(store.get_many([keys[0], keys[2_500], keys[-1]]))) == 1
        writer.join()

    def test_more_threads_than_connections_wait_for_one(self, opening):
        store = opening(connections=2)
        threads = [threading.Thread(target=store.put_newer, args=([(b"%d" % n, row(n))],)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(list(store.scan(b""))) == 20


def test_a_redis_that_is_not_there_or_has_a_password_or_no_memory(tmp_path):
    gone = open_redis(RedisSettings("redis://:secret-word@127.0.0.1:1/0", connect_timeout=0.5), tmp_path)
    with pytest.raises(MainspringError) as caught:
        gone.get_many([b"a"])
    assert (caught.value.code, caught.value.origin) == ("MS-4210", "127.0.0.1:1")
    assert "secret-word" not in caught.value.lines()
    gone.close()
    with redis_server.running("--requirepass", "right", "--maxmemory", "3mb") as url:
        closed = open_redis(RedisSettings(url), tmp_path)
        assert fault(lambda: closed.get_many([b"a"])) == "MS-4211"
        store = open_redis(RedisSettings(url.replace("unix://", "unix://:right@")), tmp_path)
        assert fault(lambda: [store.put_newer([(b"%d" % n, row(n, body=bytes(100_000)))]) for n in range(99)]) == (
            "MS-4142"
        )
        assert store.get_many([b"0"]) != [None], "what was acknowledged stays"
        store.close()
        closed.close()


def test_a_redis_that_comes_back_answers_the_same_store(tmp_path):
    with redis_server.running() as url:
        store = open_redis(RedisSettings(url), tmp_path)
        store.put_newer([(b"a", row(1))])
    assert fault(lambda: store.get_many([b"a"])) == "MS-4210"
    store.close()


class TestPostgres(OnlineStoreContract):
    @pytest.fixture
    def opening(self, postgres_url):
        opened = []

        def open_one():
            opened.append(open_postgres(PostgresSettings(postgres_url), Path("/nowhere")))
            return opened[-1]

        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("drop table if exists mainspring_online")
        yield open_one
        for store in opened:
            store.close()

    def test_it_says_that_it_answers(self, opening):
        assert postgres_health(opening()) == {"answers": True}
        assert (POSTGRES.port, POSTGRES.embedded, POSTGRES.extra) == ("online", False, "postgres")

    def test_an_idle_connection_that_the_server_ends_is_replaced(self, opening, postgres_url):
        store = opening()
        store.put_newer([(b"a", row(1))])
        for use in (lambda: store.get_many([b"a"]), lambda: store.put_newer([(b"a", row(1))])):
            with psycopg.connect(postgres_url, autocommit=True) as other:
                other.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
            assert use() in ([row(1)], 0)

    def test_batches_that_cross_do_not_wait_for_each_other(self, opening):
        keys = [b"%03d" % number for number in range(200)]

        def write(order):
            mine = opening()
            for number in range(10):
                mine.put_newer([(key, row(number)) for key in order])

        threads = [threading.Thread(target=write, args=(order,)) for order in (keys, keys[::-1])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(opening().get_many(keys)) == {row(9)}


def test_a_postgres_that_is_not_there(tmp_path):
    store = open_postgres(PostgresSettings("postgresql://127.0.0.1:1/x", connect_seconds=0.5), tmp_path)
    assert fault(lambda: store.get_many([b"a"])) == "MS-4201"
    store.close()
