"""One DuckDB instance of a kind stays open, and nobody sees what another has left in it."""

import os

import duckdb
import pyarrow as pa
import pytest

from mainspring.features import duck

ROWS = pa.table({"x": [3, 1, 2]})


@pytest.fixture
def opened(monkeypatch):
    """How many instances were opened."""
    duck._close_idle()
    count = []
    really = duck._open

    def counted(config):
        count.append(config)
        return really(config)

    monkeypatch.setattr(duck, "_open", counted)
    yield count
    duck._close_idle()


def ask(sql="select sum(x) from t"):
    with duck.connection() as connection:
        connection.register("t", ROWS)
        connection.execute("create temp table made as from t")
        return connection.sql(sql).fetchall()


def test_many_questions_open_one_instance_and_leave_nothing_in_it(opened):
    assert [ask() for _ in range(3)] == [[(6,)]] * 3
    with duck.connection() as connection:
        for name in ("t", "made"):
            with pytest.raises(duckdb.CatalogException):
                connection.sql(f"from {name}").fetchall()
    assert len(opened) == 1


def test_who_asks_amid_another_question_has_an_instance_of_its_own(opened):
    with duck.connection() as connection:
        connection.register("t", ROWS)
        assert ask() == [(6,)]
        assert connection.sql("select count(*) from t").fetchall() == [(3,)]
    assert len(opened) == 2
    assert len(duck._idle) == 1, "one of a kind is kept"


def test_other_limits_and_orders_are_other_instances(opened):
    with duck.connection(threads=1) as connection:
        assert connection.sql("select current_setting('threads')").fetchall() == [(1,)]
    with duck.connection(ordered=True) as connection:
        assert connection.sql("select current_setting('preserve_insertion_order')").fetchall() == [(True,)]
    assert ask("select current_setting('preserve_insertion_order'), current_setting('timezone')") == [(False, "UTC")]
    assert len(opened) == 3


def test_after_a_failure_a_new_one_is_opened(opened):
    with pytest.raises(duckdb.Error):
        ask("select no_such(x) from t")
    assert not duck._idle
    assert ask() == [(6,)]


def test_sql_of_users_reads_no_file_and_what_it_makes_is_not_there_for_the_next(opened, tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n")
    with pytest.raises(duckdb.Error, match=r"(?i)disabled"):
        duck.query(f"from '{tmp_path}/a.csv'", {})
    found = duck.query("create table kept as from t; select count(*) as n from kept", {"t": ROWS})
    assert found.to_pylist() == [{"n": 3}]
    with pytest.raises(duckdb.CatalogException):
        duck.query("from kept", {})
    assert duck.query("select x + 1 as y from t", {"t": ROWS}, ordered=True).to_pylist() == [
        {"y": 4},
        {"y": 2},
        {"y": 3},
    ]


def test_a_forked_child_answers_and_so_does_its_parent(opened):
    assert ask() == [(6,)]
    child = os.fork()
    if child == 0:
        os._exit(0 if ask() == [(6,)] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert ask() == [(6,)]
