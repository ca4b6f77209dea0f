"""What scoring a table takes, and what comes of it, as values."""

from __future__ import annotations

import msgspec

from mainspring.declare.record import ColumnType
from mainspring.features.definitions import Reads

__all__ = ["ASIDE", "PREDICTION", "REASON", "ROW", "SCORE", "SCORED", "Carried", "Part", "Scores", "Scoring"]

SCORE, PREDICTION = "score", "prediction"
"""The columns that are added: the score, and what it says (true or false for a boolean label)."""

ROW, REASON = "_row", "_reason"
"""The columns of rows that are set aside: their place in the table, the first being 0, and what is wrong with them."""

SCORED, ASIDE = "scored.parquet", "aside.parquet"
"""The files of a part."""


class Part(msgspec.Struct, frozen=True):
    """Rows `start` to `stop` of a table."""

    start: int
    stop: int


class Carried(msgspec.Struct, frozen=True):
    """A column that a table must have.

    Attributes:
        name: its name.
        type: its type; null only where that is nullable.
    """

    name: str
    type: ColumnType


class Scoring(msgspec.Struct, frozen=True):
    """How a table is scored.

    Attributes:
        model: the model's name.
        version: the number of the version that scores.
        entity: its id in the catalog.
        artifact: the digest of its folder.
        vouched: the digest that the catalog has of a file that runs code.
        binary: whether what is predicted is true or false.
        reads: what the version reads.
        carried: the columns that the table must have: those of the model, or keys and what the look-up asks for.
        joined: whether features are looked up for the keys; else all of the model's columns are in the table.
        time: the column with each row's moment, where features are looked up; empty when `moment_us` holds.
        moment_us: one moment for all rows, UTC microseconds.
        zone: the zone of times that carry none, or None to refuse them.
        text: whether all values came as text.
        keep: the columns of the table that the output begins with.
        set_aside: whether rows that do not fit are set aside; else the first of them ends it.
    """

    model: str
    version: int
    entity: str
    artifact: str
    vouched: str
    binary: bool
    reads: Reads
    carried: tuple[Carried, ...]
    joined: bool
    time: str
    moment_us: int | None
    zone: str | None
    text: bool
    keep: tuple[str, ...]
    set_aside: bool


class Scores(msgspec.Struct, frozen=True):
    """What came of scoring a table.

    Attributes:
        model: the model's name.
        version: the number of the version that has scored.
        entity: the version's id in the catalog.
        rows: how many rows the table has.
        scored: how many of them have a score.
        set_aside: how many do not fit.
        joined: whether features were looked up.
        parts: the digests of the parts, in order.
    """

    model: str
    version: int
    entity: str
    rows: int
    scored: int
    set_aside: int
    joined: bool
    parts: tuple[str, ...]
