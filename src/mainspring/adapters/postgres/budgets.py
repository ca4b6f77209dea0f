"""Budgets of several servers in Postgres: a row a counter, and a row for the places that a member holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from mainspring.adapters.postgres.connections import Connections
from mainspring.adapters.postgres.settings import PostgresSettings
from mainspring.ports.budgets import Drawn, Hold, Rest, Want

__all__ = ["PostgresBudgets", "open_budgets"]

_LOCK = 0x6D616275  # "mabu": one process makes the tables
_TABLES: tuple[LiteralString, ...] = (
    """create table if not exists llm_budget (
        counter text collate "C" primary key, used bigint not null, ends timestamptz not null)""",
    "create index if not exists llm_budget_ends on llm_budget (ends)",
    """create table if not exists llm_places (
        account text collate "C" not null, member text collate "C" not null, places bigint not null,
        ends timestamptz not null, primary key (account, member))""",
)
_MAKE: LiteralString = (
    "insert into llm_budget (counter, used, ends) values (%s, %s, now() + make_interval(secs => %s)) "
    "on conflict do nothing"
)
_SWEEP: LiteralString = (
    "delete from llm_budget where counter in (select counter from llm_budget where ends < now() for update skip locked)"
)
_USED: LiteralString = "select used from llm_budget where counter = %s for update"
_ADD: LiteralString = "update llm_budget set used = greatest(used + %s, 0) where counter = %s"
_OTHERS: LiteralString = (
    "select coalesce(sum(places), 0) from llm_places where account = %s and member <> %s and ends > clock_timestamp()"
)
_PUT: LiteralString = (
    "insert into llm_places (account, member, places, ends) "
    "values (%s, %s, %s, clock_timestamp() + make_interval(secs => %s)) "
    "on conflict (account, member) do update set places = excluded.places, ends = excluded.ends"
)


def open_budgets(settings: PostgresSettings, place: Path) -> PostgresBudgets:
    """The budgets in the database that ``budgets.url`` names; their tables are made when they are not there.

    Raises:
        ServiceError: MS-4201, it does not answer; MS-4202, it does not allow that.
    """
    return PostgresBudgets(settings)


class PostgresBudgets:
    """Implements `mainspring.ports.budgets.BudgetStore`: each call is one transaction.

    Args:
        settings: where it is.

    Attributes:
        database: the connections to it.
    """

    def __init__(self, settings: PostgresSettings) -> None:
        self.database = Connections(settings, "budgets")
        self.database.make(_LOCK, _TABLES)

    def draw(self, wants: Sequence[Want]) -> list[Drawn]:
        """As `BudgetStore.draw`."""
        found = [Drawn(0, 0)] * len(wants)
        with self.database.transaction() as cursor:
            for at in _in_order([want.counter for want in wants]):
                found[at] = _drawn(cursor, wants[at])
        return found

    def give_back(self, rests: Sequence[Rest]) -> None:
        """As `BudgetStore.give_back`."""
        with self.database.transaction() as cursor:
            for at in _in_order([rest.counter for rest in rests]):
                cursor.execute(_ADD, (-rests[at].amount, rests[at].counter))

    def hold(self, member: str, holds: Sequence[Hold], lasts_s: float) -> list[Drawn]:
        """As `BudgetStore.hold`; time is the server's own."""
        found = [Drawn(0, 0)] * len(holds)
        with self.database.transaction() as cursor:
            for at in _in_order([hold.account for hold in holds]):
                hold = holds[at]
                cursor.execute("select pg_advisory_xact_lock(%s, hashtext(%s))", (_LOCK, hold.account))
                row = cursor.execute(_OTHERS, (hold.account, member)).fetchone()
                free = max(hold.most - int(row[0] if row else 0), 0)
                got = min(hold.places, free)
                if got:
                    cursor.execute(_PUT, (hold.account, member, got, lasts_s))
                else:
                    cursor.execute(
                        "delete from llm_places where account = %s and (member = %s or ends <= clock_timestamp())",
                        (hold.account, member),
                    )
                found[at] = Drawn(got, free - got)
        return found

    def close(self) -> None:
        """Close this process's connections."""
        self.database.close()


def _in_order(names: Sequence[str]) -> list[int]:
    """Where they are, by name: transactions that lock in one order never wait for each other."""
    return sorted(range(len(names)), key=names.__getitem__)


def _drawn(cursor: psycopg.Cursor[Any], want: Want) -> Drawn:
    if cursor.execute(_MAKE, (want.counter, want.before, want.lasts_s)).rowcount:
        cursor.execute(_SWEEP)
    row = cursor.execute(_USED, (want.counter,)).fetchone()
    left = max(want.limit - int(row[0] if row else want.before), 0)
    got = min(want.wish, left) if left >= want.least else 0
    if got:
        cursor.execute(_ADD, (got, want.counter))
    return Drawn(got, left - got)
