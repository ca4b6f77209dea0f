"""Sources in a real Postgres, read by the real command line: whole, by increments, by a query; killed in the midst."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

import postgres
from e2e.conftest import mainspring
from mainspring.choose.services import Services

APP = """
from datetime import datetime
from decimal import Decimal

from mainspring import App, Entity, Field, Record, count, last

app = App("shop")
customer = Entity("customer")


class Order(Record):
    customer: str
    amount: Decimal = Field(precision=20, scale=4)
    note: str | None
    placed: datetime
    changed: datetime


orders = app.source(Order, time="placed")
habits = app.features(orders, entity=customer, amount=last("amount"), often=count("30d"))
"""
TABLE = """
create table orders (
    customer char(8) not null, amount numeric(30, 10), note text, placed timestamptz not null,
    changed timestamptz, secret text default 'x'
);
create index on orders (changed);
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres.running() as found:
        yield found


@pytest.fixture
def database(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop table if exists orders")
        connection.execute(TABLE)
        yield connection


def project(folder: Path, settings: str) -> Path:
    (folder / "shop.py").write_text(APP)
    (folder / "mainspring.toml").write_text(
        f'app = "shop:app"\n[sources.orders]\nurl = "env:ORDERS_URL"\n{settings}\n[tables]\ntidy_every = 1000\n'
    )
    return folder


def put(database: psycopg.Connection, *rows: tuple[object, ...]) -> None:
    with database.cursor() as cursor:
        cursor.executemany("insert into orders (customer, amount, placed, changed) values (%s, %s, %s, %s)", rows)


def applied(folder: Path) -> dict[str, str]:
    done = json.loads(mainspring("apply", "--json", cwd=folder).stdout)
    return {step["name"]: step["status"] for step in done["steps"]}


def held(folder: Path, *columns: str) -> list[tuple[object, ...]]:
    services = Services.of_project(folder)
    (log,) = [name for name in services.tables.tables() if name.startswith("source/orders")]
    rows = services.tables.read(log).sort_by("_seq").to_pylist()
    services.close()
    return [tuple(row[column] for column in columns) for row in rows]


@pytest.fixture(autouse=True)
def place(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_URL", url)


def test_a_table_is_read_whole_and_compared(database: psycopg.Connection, tmp_path: Path) -> None:
    folder = project(tmp_path, 'table = "public.orders"')
    put(
        database,
        ("ann", "1234567890123456.7891", "2026-01-01 10:00+02", "2026-01-01 08:00Z"),
        ("bob", "0.1", "2026-01-02 10:00Z", "2026-01-02 10:00Z"),
    )
    assert applied(folder) == dict.fromkeys(["source/orders", "feature_view/habits", "online/habits"], "ok")
    rows = held(folder, "customer", "amount", "_assumed")
    assert rows == [("ann", Decimal("1234567890123456.7891"), True), ("bob", Decimal("0.1000"), True)]
    assert applied(folder) == {"source/orders": "ok", "feature_view/habits": "hit", "online/habits": "hit"}
    assert held(folder, "customer", "amount", "_assumed") == rows, "the second run appends nothing"
    database.execute("delete from orders where customer = 'bob'")
    put(database, ("cyd", "2", "2026-01-03Z", "2026-01-03Z"))
    assert set(applied(folder).values()) == {"ok"}
    more = held(folder, "customer", "_deleted", "_assumed")[2:]
    assert more == [("bob", True, False), ("cyd", False, False)], "what is gone is taken away"


def test_increments_by_a_cursor(database: psycopg.Connection, tmp_path: Path) -> None:
    folder = project(tmp_path, 'table = "orders"\ncursor = "changed"\noverlap = "10m"')
    put(
        database,
        ("ann", "1", "2026-01-01Z", "2026-01-01 00:00Z"),
        ("ann", "1", "2026-01-01Z", "2026-01-01 00:00Z"),  # twice the same: two events
        ("bob", "2", "2026-01-02Z", "2026-01-01 00:20Z"),
    )
    applied(folder)
    first = held(folder, "customer", "amount", "_assumed")
    assert first == [("ann", 1, True), ("ann", 1, True), ("bob", 2, True)]
    assert applied(folder) == {"source/orders": "ok", "feature_view/habits": "hit", "online/habits": "hit"}
    put(
        database,
        ("late", "3", "2026-01-02Z", "2026-01-01 00:12Z"),  # committed late, within the overlap
        ("lost", "4", "2026-01-02Z", "2026-01-01 00:05Z"),  # and beyond it
        ("bob", "5", "2026-01-02Z", "2026-01-01 00:30Z"),
        ("odd", None, "2026-01-02Z", "2026-01-01 00:31Z"),
        ("none", "7", "2026-01-02Z", None),
        ("ever", "8", "2026-01-02Z", "infinity"),
    )
    done = mainspring("apply", cwd=folder)
    assert "2 rows added" in done.stderr, done.stderr
    assert held(folder, "customer", "amount", "_assumed")[3:] == [("late", 3, False), ("bob", 5, False)]
    shown = mainspring("show", "source/orders", cwd=folder).stdout
    assert "amount is null" in shown
    assert "changed is null" in shown, "rows that no range holds are told, not lost"
    before = held(folder, "_seq", "_ingest_time")
    assert applied(folder)["feature_view/habits"] == "hit"
    assert held(folder, "_seq", "_ingest_time") == before
    database.execute("delete from orders where customer = 'ann'")
    applied(folder)
    assert held(folder, "_seq", "_ingest_time") == before, "increments take nothing away"


def test_a_row_dated_into_the_future_hides_nothing(database: psycopg.Connection, tmp_path: Path) -> None:
    folder = project(tmp_path, 'table = "orders"\ncursor = "changed"')
    put(database, ("ann", "1", "2026-01-01Z", "2199-01-01Z"))
    applied(folder)
    database.execute("insert into orders values ('bob', 2, null, now(), now())")
    applied(folder)
    applied(folder)
    assert held(folder, "customer", "_assumed") == [("ann", True), ("bob", False)]


def test_a_query_in_a_file(database: psycopg.Connection, tmp_path: Path) -> None:
    folder = project(tmp_path, 'query = "orders.sql"\ncursor = "changed"')
    (folder / "orders.sql").write_text(
        "select upper(customer) as \"Customer\", amount, 'of 100% -- ' as note, placed, changed\n"
        "from orders where amount > 1;  -- the greater ones\n"
    )
    put(database, ("ann", "1", "2026-01-01Z", "2026-01-01Z"), ("bob", "2", "2026-01-01Z", "2026-01-02Z"))
    mainspring("apply", cwd=folder, status=1)
    (folder / "orders.sql").write_text((folder / "orders.sql").read_text().replace(";  -- the", "  -- the"))
    applied(folder)
    assert held(folder, "customer", "note") == [("BOB", "of 100% -- ")]


def test_a_killed_first_read_goes_on_and_doubles_nothing(database: psycopg.Connection, tmp_path: Path) -> None:
    folder = project(tmp_path, 'table = "orders"\ncursor = "changed"\ncommit_rows = 5000')
    database.execute(
        "insert into orders select 'c' || n % 100, n, null, timestamptz '2026-01-01Z' + n * interval '1 second', "
        "timestamptz '2026-01-01Z' + (n / 3) * interval '1 second' from generate_series(1, 60000) n"
    )
    for wanted in (2, 5):
        process = subprocess.Popen(
            [sys.executable, "-m", "mainspring.cli", "apply"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None and _commits(folder) < wanted:
            time.sleep(0.005)
        assert process.poll() is None, "it ended before it was killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.2)
        assert wanted <= _commits(folder) < 12, "it was killed in the midst"
    applied(folder)
    rows = held(folder, "amount", "_assumed")
    assert sorted(amount for amount, _ in rows) == list(range(1, 60001))
    assert {assumed for _, assumed in rows} == {True}, "all of it was there before anything was read"
    before = held(folder, "_seq")
    applied(folder)
    assert held(folder, "_seq") == before


def _commits(folder: Path) -> int:
    return len(list(folder.glob(".mainspring/tables/source/orders/*/_delta_log/*.json"))) - 1


def test_what_is_wrong_is_told_before_and_by_doctor(
    database: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project(tmp_path, 'table = "orders"\ncursor = "changed"\noverlap = "1h"')
    mainspring("check", cwd=folder)
    found = {one["name"]: one for one in json.loads(mainspring("doctor", "--json", cwd=folder, status=None).stdout)}
    assert found["sources.orders"]["value"].startswith("answers: version ")
    (report,) = json.loads(mainspring("conditions", "source", "--json", cwd=folder).stdout)["ports"]
    assert (report["port"], report["chosen"]) == ("sources.orders", "postgres")
    for settings, code in [
        ("", "MS-3041"),
        ('table = "orders"\nquery = "select 1"', "MS-3041"),
        ('table = "orders"\ncursor = "secret"', "MS-3041"),
        ('table = "orders"\ncursor = "note"', "MS-3041"),
        ('table = "orders"\noverlap = "1h"', "MS-3041"),
        ('table = "orders"\ncursor = "changed"\noverlap = "1000"', "MS-3041"),
        ('query = "gone.sql"', "MS-3041"),
        ('tabel = "orders"', "MS-3004"),
    ]:
        refused = mainspring("check", cwd=project(tmp_path, settings), status=3).stderr
        assert refused.startswith(f"error {code}"), refused
        assert "  fix " in refused
    project(tmp_path, 'table = "orders"')
    monkeypatch.setenv("ORDERS_URL", "postgresql://me:secret-word@127.0.0.1:1/shop")
    found = {one["name"]: one for one in json.loads(mainspring("doctor", "--json", cwd=folder, status=3).stdout)}
    assert found["sources.orders"]["remedy"]
    gone = mainspring("apply", cwd=folder, status=None)
    assert gone.returncode == 4, gone.stderr
    assert "MS-4220" in gone.stderr
    assert "secret-word" not in gone.stderr + str(found)
