"""Casts lose nothing or do not happen."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from mainspring.declare.record import ColumnType, Kind
from mainspring.features.cast import Reading, UnfitError, bad_rows, cast_column
from mainspring.features.view import arrow_type

TEXT = Reading(text=True)
NEW_YORK = Reading(text=True, zone="America/New_York")
MOMENT = datetime(2013, 1, 1, 6, tzinfo=UTC)


def cast(values, kind, how=None, **size):
    column = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    wanted = ColumnType(kind, True, **size)
    found = cast_column(column, wanted, how or Reading())
    assert found.type == arrow_type(wanted)
    return found.to_pylist()


FITS = [
    (pa.array([1, None], pa.int32()), Kind.INTEGER, None, [1, None]),
    (pa.array([2.0, None]), Kind.INTEGER, None, [2, None]),
    (pa.array([2**53], pa.int64()), Kind.FLOAT, None, [2.0**53]),
    (pa.array(["7", " 8 ", "NA", "null", ""]), Kind.INTEGER, TEXT, [7, 8, None, None, None]),
    (pa.array(["1e3", "N/A", "-0.5"]), Kind.FLOAT, TEXT, [1000.0, None, -0.5]),
    (pa.array(["True", "f", "NA"]), Kind.BOOLEAN, TEXT, [True, False, None]),
    (pa.array([1, 0, None]), Kind.BOOLEAN, None, [True, False, None]),
    (pa.array(["NA", "", None]), Kind.STRING, TEXT, ["NA", "", None]),
    (pa.array(["a", None]).dictionary_encode(), Kind.STRING, None, ["a", None]),
    (pa.array(["a"], pa.large_string()), Kind.STRING, None, ["a"]),
    (pa.array(["a"], pa.string_view()), Kind.STRING, None, ["a"]),
    (pa.array([None, None]), Kind.DATE, None, [None, None]),
    (pa.array([1357020000000], pa.timestamp("ms", "Asia/Tokyo")), Kind.TIMESTAMP, None, [MOMENT]),
    (pa.array(["2013-01-01T06:00:00Z", "2013-01-01 07:00:00+0100"]), Kind.TIMESTAMP, TEXT, [MOMENT, MOMENT]),
    (pa.array(["2013-01-01 01:00:00", "2013-01-01T06:00:00Z"]), Kind.TIMESTAMP, NEW_YORK, [MOMENT, MOMENT]),
    (pa.array(["2013-01-01"]), Kind.TIMESTAMP, NEW_YORK, [datetime(2013, 1, 1, 5, tzinfo=UTC)]),
    (pa.array([15706], pa.date32()), Kind.TIMESTAMP, NEW_YORK, [datetime(2013, 1, 1, 5, tzinfo=UTC)]),
    (
        pa.array([1001, -1], pa.timestamp("ns", "UTC")),
        Kind.TIMESTAMP,
        Reading(truncate=True),
        [datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)],
    ),
    (
        pa.array(["2013-01-01T06:00:00.1234567Z"]),
        Kind.TIMESTAMP,
        Reading(text=True, truncate=True),
        [MOMENT.replace(microsecond=123456)],
    ),
    (pa.array(["2020-02-29", "NA"]), Kind.DATE, TEXT, [date(2020, 2, 29), None]),
    (pa.array(["YQ==", None]), Kind.BYTES, TEXT, [b"a", None]),
    (pa.array([], pa.string()), Kind.TIMESTAMP, TEXT, []),
]


@pytest.mark.parametrize(("values", "kind", "how", "expected"), FITS)
def test_what_fits(values, kind, how, expected):
    assert cast(values, kind, how) == expected


def test_decimals_and_vectors():
    assert cast(pa.array([Decimal("1.20"), None]), Kind.DECIMAL, precision=10, scale=1) == [Decimal("1.2"), None]
    assert cast(pa.array([5]), Kind.DECIMAL, precision=10, scale=2) == [Decimal("5.00")]
    assert cast(pa.array(["1.5", "NA"]), Kind.DECIMAL, TEXT, precision=10, scale=1) == [Decimal("1.5"), None]
    assert cast(pa.array([[1.0, 2.5], None]), Kind.VECTOR, length=2) == [[1.0, 2.5], None]


MISFITS = [
    (pa.array(["1"]), Kind.INTEGER, None, "it holds string"),
    (pa.array([1]), Kind.STRING, None, "it holds int64"),
    (pa.array([1.5]), Kind.INTEGER, None, "truncated"),
    (pa.array([2**63], pa.uint64()), Kind.INTEGER, None, "not in range"),
    (pa.array([2**53 + 1]), Kind.FLOAT, None, "not in range"),
    (pa.array(["2.0"]), Kind.INTEGER, TEXT, "'2.0'"),
    (pa.array(["maybe"]), Kind.BOOLEAN, TEXT, "neither true nor false"),
    (pa.array([2]), Kind.BOOLEAN, None, "neither true nor false"),
    (pa.array([0], pa.timestamp("us")), Kind.TIMESTAMP, None, "no zone"),
    (pa.array([0], pa.date32()), Kind.TIMESTAMP, None, "no zone"),
    (pa.array(["2013-01-01 06:00:00"]), Kind.TIMESTAMP, TEXT, "no zone"),
    (pa.array(["2013-03-10 02:30:00"]), Kind.TIMESTAMP, NEW_YORK, "does not exist"),
    (pa.array(["2013-11-03 01:30:00"]), Kind.TIMESTAMP, NEW_YORK, "exists twice"),
    (pa.array([0], pa.timestamp("ns", "UTC")), Kind.TIMESTAMP, None, "nanoseconds"),
    (pa.array(["2013-01-01T06:00:00.1234567Z"]), Kind.TIMESTAMP, TEXT, "beyond microseconds"),
    (pa.array([0], pa.timestamp("us", "UTC")), Kind.DATE, None, "which day it is depends on a zone"),
    (pa.array([1.5]), Kind.DECIMAL, None, "it holds double"),
    (pa.array(["!"]), Kind.BYTES, TEXT, "base64"),
    (pa.array([1], pa.time64("us")), Kind.TIMESTAMP, None, "it holds time64"),
]


@pytest.mark.parametrize(("values", "kind", "how", "why"), MISFITS)
def test_what_does_not_fit(values, kind, how, why):
    with pytest.raises(UnfitError, match=why):
        cast(values, kind, how, precision=10, scale=1)


def test_vectors_of_another_length_and_decimals_of_another_scale():
    for values, why in (([[1.0]], "2 elements"), ([[]], "2 elements"), ([[1.0, None]], "null inside")):
        with pytest.raises(UnfitError, match=why):
            cast(pa.array(values, pa.list_(pa.float64())), Kind.VECTOR, length=2)
    with pytest.raises(UnfitError, match="data loss"):
        cast(pa.array([Decimal("1.25")]), Kind.DECIMAL, precision=10, scale=1)


def test_the_first_bad_rows_are_named():
    column = pa.chunked_array([["1", "x", "3"], ["y", "5", "z", "w"]])
    found = bad_rows(column, ColumnType(Kind.INTEGER), TEXT)
    assert [(row, value) for row, value, _ in found] == [(1, "x"), (3, "y"), (5, "z")]
