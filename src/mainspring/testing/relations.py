"""The contract of databases that sources are in: derive from `RelationsContract` and give it your database to fill."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from mainspring.errors import DataError, ServiceError
from mainspring.lazy import lazy
from mainspring.ports.source import NUMBER_AS_TEXT, Range, Relation, Relations, column_called

if TYPE_CHECKING:
    import pyarrow as pa
    import pytest
else:
    pa, pytest = lazy("pyarrow"), lazy("pytest")

__all__ = ["Filling", "Held", "RelationsContract"]

Held = Literal["text", "char(8)", "int64", "number(30, 10)", "float64", "naive", "zoned", "date", "flag", "bytes"]
"""What a column of the database is to hold; ``naive`` and ``zoned`` are times to the microsecond."""

Filling = Callable[[str, dict[str, Held], Sequence[tuple[object, ...]]], None]
"""Makes a table anew by name, columns and rows."""

_AT = datetime(2026, 3, 1, 12, 30, 15, 123456, UTC)
_NAIVE = _AT.replace(tzinfo=None)


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()))


class RelationsContract:
    """What every database does that sources are read from.

    A subclass defines the fixtures ``reader``, the opened adapter, ``filling``, a function that makes a table, and
    ``unreachable``, the adapter of a server that does not answer, whose password is ``secret-word``.
    """

    empty_text_is_null = False
    """Whether the database holds no text without characters."""
    zoned = True
    """Whether it has times with a zone."""

    def _with_zone(self) -> dict[str, Held]:
        return {"zoned": "zoned"} if self.zoned else {}

    def _rows(self, reader: Relations, table: str, schema: pa.Schema, within: Range | None = None) -> pa.Table:
        return pa.Table.from_batches(list(reader.rows(Relation("orders", table), schema, within)))

    def test_it_is_the_port(self, reader: Relations) -> None:
        """It has every method, and says something of itself."""
        assert isinstance(reader, Relations)
        assert reader.answers()

    def test_columns(self, reader: Relations, filling: Filling) -> None:
        """They are there without a row; case is the database's business."""
        filling("contract", {"id": "int64", "note": "text"}, [])
        names = list(reader.columns(Relation("orders", "contract")))
        assert [column_called(name, names) for name in ("id", "note", "NOTE", "other")] == [*names, names[1], None]
        assert list(reader.columns(Relation("orders", query="select id as a, note as b from contract"))) != names

    def test_an_empty_table(self, reader: Relations, filling: Filling) -> None:
        """It is one empty batch with the columns asked for, and its newest value is none."""
        filling("contract", {"id": "int64", "note": "text"}, [])
        found = self._rows(reader, "contract", _schema(note=pa.string(), id=pa.int64()))
        assert (found.column_names, len(found)) == (["note", "id"], 0)
        assert reader.newest(Relation("orders", "contract"), "id") is None

    def test_numbers_are_exact(self, reader: Relations, filling: Filling) -> None:
        """Twenty digits before the point and ten behind it; the greatest int64; they may come as text."""
        numbers = [Decimal("12345678901234567890.0123456789"), Decimal("-0.0000000001"), Decimal(7), None]
        whole = [2**63 - 1, -(2**63), 2**53 + 1, None]
        rows = [(number, one) for number, one in zip(numbers, whole, strict=True)]
        filling("contract", {"n": "number(30, 10)", "i": "int64"}, rows)
        found = self._rows(reader, "contract", _schema(n=pa.decimal128(38, 10), i=pa.int64()))
        if pa.types.is_string(found.schema.field("n").type):
            assert found.schema.field("n").metadata == NUMBER_AS_TEXT
        texts = found.column("n").to_pylist()
        assert [None if text is None else Decimal(text) for text in texts] == numbers
        assert found.column("i").to_pylist() == whole

    def test_whole_numbers_have_no_point(self, reader: Relations, filling: Filling) -> None:
        """A number with a scale whose part behind the point is zero may be declared as an integer."""
        filling("contract", {"n": "number(30, 10)"}, [(Decimal("5.0000000000"),), (Decimal(120),)])
        found = self._rows(reader, "contract", _schema(n=pa.int64())).column("n")
        assert found.cast(pa.int64()).to_pylist() == [5, 120]

    def test_texts(self, reader: Relations, filling: Filling) -> None:
        """All characters come back; the padding of CHAR(n) is cut, and spaces of other texts are not."""
        texts = ["a'b\"c\\d", "line\nline\ttab", "日本語 é e\u0301 😀", " spaces  ", "x" * 3000, None]
        filling("contract", {"t": "text", "c": "char(8)"}, [(text, "ab") for text in texts])
        found = self._rows(reader, "contract", _schema(t=pa.string(), c=pa.string()))
        assert sorted(map(str, found.column("t").to_pylist())) == sorted(map(str, texts))
        assert set(found.column("c").to_pylist()) == {"ab"}
        filling("contract", {"t": "text"}, [("",)])
        held = self._rows(reader, "contract", _schema(t=pa.string())).column("t").to_pylist()
        assert held == ([None] if self.empty_text_is_null else [""])

    def test_times(self, reader: Relations, filling: Filling) -> None:
        """Microseconds are kept; with a zone they are the same moment, without one they stay without."""
        kinds: dict[str, Held] = {"naive": "naive", "day": "date", **self._with_zone()}
        east = _AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
        filling("contract", kinds, [(_NAIVE, date(2026, 3, 1), east)[: len(kinds)], (None, None, None)[: len(kinds)]])
        wanted = _schema(**dict.fromkeys(kinds, pa.timestamp("us", "UTC")))
        found = self._rows(reader, "contract", wanted)
        naive, day = (found.column(name).drop_null() for name in ("naive", "day"))
        assert pa.types.is_timestamp(naive.type)
        assert (naive.type.tz, naive.cast(pa.timestamp("us")).to_pylist()) == (None, [_NAIVE])
        assert day.cast(pa.date32()).to_pylist() == [date(2026, 3, 1)]
        if self.zoned:
            zoned = found.column("zoned").drop_null()
            assert zoned.type.tz is not None
            assert zoned.cast(pa.timestamp("us", "UTC")).to_pylist() == [_AT]

    def test_other_types(self, reader: Relations, filling: Filling) -> None:
        """Floats with all their digits, truths, bytes."""
        rows = [(0.1 + 0.2, True, b"\x00\xff"), (-1e300, False, b"a"), (None, None, None)]
        filling("contract", {"f": "float64", "b": "flag", "y": "bytes"}, rows)
        wanted = _schema(f=pa.float64(), b=pa.bool_(), y=pa.binary())
        found = self._rows(reader, "contract", wanted)
        assert sorted(found.column("f").drop_null().cast(pa.float64()).to_pylist()) == [-1e300, 0.1 + 0.2]
        assert sorted(map(str, found.column("b").cast(pa.bool_()).to_pylist())) == ["False", "None", "True"]
        assert sorted(map(str, found.column("y").cast(pa.binary()).to_pylist())) == sorted(str(row[2]) for row in rows)

    def test_the_newest_and_ranges(self, reader: Relations, filling: Filling) -> None:
        """Both bounds belong to a range; rows come in its order, and those without a value come too."""
        drawn = random.Random(0)
        moments = [_NAIVE + timedelta(microseconds=number) for number in range(50)]
        rows: list[tuple[object, ...]] = [(number, moment) for number, moment in enumerate(moments)]
        rows += [(100, None), (101, None), (10, moments[10])]
        drawn.shuffle(rows)
        filling("contract", {"i": "int64", "at": "naive"}, rows)
        of, wanted = Relation("orders", "contract"), _schema(i=pa.int64(), at=pa.timestamp("us", "UTC"))
        assert (reader.newest(of, "i"), reader.newest(of, "at")) == (101, moments[-1])
        for least, most in [(None, 20), (10, 20), (20, 10), (49, 49)]:
            within = Range("at", None if least is None else moments[least], moments[most])
            found = self._rows(reader, "contract", wanted, within)
            expected = [n for n, at in rows if at is None or (least or 0) <= moments.index(at) <= most]  # type: ignore[arg-type]
            assert sorted(found.column("i").to_pylist()) == sorted(expected)  # type: ignore[type-var]
            ordered = found.column("at").drop_null().to_pylist()
            assert ordered == sorted(ordered)
        by_number = self._rows(reader, "contract", wanted, Range("i", 10, 11)).column("i").to_pylist()
        assert by_number == [10, 10, 11]

    def test_a_number_with_a_scale_and_a_date_as_cursors(self, reader: Relations, filling: Filling) -> None:
        """Their newest values and ranges are as exact as they are."""
        rows = [(Decimal(n) / 4 + 2**60, date(2026, 1, 1) + timedelta(days=n)) for n in range(8)]
        filling("contract", {"n": "number(30, 10)", "d": "date"}, rows)
        of, wanted = Relation("orders", "contract"), _schema(n=pa.decimal128(38, 10), d=pa.date32())
        newest = reader.newest(of, "n")
        assert newest == rows[-1][0]
        assert isinstance(newest, Decimal | int)
        assert str(reader.newest(of, "d")).startswith("2026-01-08")
        assert len(self._rows(reader, "contract", wanted, Range("n", rows[3][0], rows[5][0]))) == 3
        assert len(self._rows(reader, "contract", wanted, Range("d", rows[3][1], rows[5][1]))) == 3

    def test_queries(self, reader: Relations, filling: Filling) -> None:
        """What is a sign elsewhere is a sign here, comments end where the query does, and ranges reach into it."""
        filling("contract", {"i": "int64", "t": "text"}, [(number, f"{number}%") for number in range(5)])
        text = "select i, t, ':x %s ? {y}' as s from contract where t like '%\\%%' or i >= 0 -- all of it"
        of = Relation("orders", query=text)
        wanted = _schema(i=pa.int64(), s=pa.string())
        found = pa.Table.from_batches(list(reader.rows(of, wanted, Range("i", 3, 9))))
        assert found.column("i").to_pylist() == [3, 4]
        assert set(found.column("s").to_pylist()) == {":x %s ? {y}"}
        assert reader.newest(of, "i") == 4

    def test_many_rows_come_in_batches(self, reader: Relations, filling: Filling) -> None:
        """A reader that stops early leaves nothing behind that would be in the way."""
        rows = [(number, "x" * 200) for number in range(30_000)]
        filling("contract", {"i": "int64", "t": "text"}, rows)
        wanted = _schema(i=pa.int64(), t=pa.string())
        reading = reader.rows(Relation("orders", "contract"), wanted, Range("i", None, 40_000))
        next(reading)
        other = self._rows(reader, "contract", wanted, Range("i", 29_998, 40_000))
        assert other.column("i").to_pylist() == [29_998, 29_999]
        del reading
        found = self._rows(reader, "contract", wanted, Range("i", None, 40_000))
        assert found.column("i").to_pylist() == list(range(30_000))
        assert len(found.column("t").unique()) == 1

    @pytest.mark.parametrize(
        ("table", "query"),
        [("nothing_there", None), (None, "select 1 as"), (None, "select nope from contract")],
    )
    def test_what_is_not_there(self, reader: Relations, filling: Filling, table: str | None, query: str | None) -> None:
        """It is the user's error, with the database's reason."""
        filling("contract", {"i": "int64"}, [])
        with pytest.raises(DataError) as caught:
            reader.columns(Relation("orders", table, query))
        assert caught.value.code == "MS-2150"
        assert caught.value.why
        assert caught.value.origin == f"sources.orders.{'table' if table else 'query'}"

    def test_a_server_that_does_not_answer(self, unreachable: Relations) -> None:
        """It is told, with the place and without the password."""
        with pytest.raises(ServiceError) as caught:
            unreachable.answers()
        assert (caught.value.code, bool(caught.value.fix)) == ("MS-4220", True)
        assert "secret-word" not in str(caught.value.as_dict())
