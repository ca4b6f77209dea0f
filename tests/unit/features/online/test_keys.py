"""Keys of a column are those of its values one by one."""

from datetime import UTC, date, datetime
from decimal import Context, Decimal

import pytest

from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.errors import DataError
from mainspring.features.online.keys import column_packer, key_packer, packed_columns

COLUMNS = {
    Kind.STRING: ["a", "", "é" * 150, "x" * 391, "x" * 392, "x" * 600, "\0"],
    Kind.INTEGER: [0, -1, (1 << 63) - 1, -(1 << 63)],
    Kind.BOOLEAN: [True, False],
    Kind.TIMESTAMP: [datetime(1960, 1, 1, tzinfo=UTC), 5],
    Kind.DATE: [date(1900, 2, 28)],
    Kind.DECIMAL: [Decimal("1.50"), Decimal("-0")],
    Kind.BYTES: [b"", b"\xff", b"x" * 600],
}


def field(kind, name="k"):
    return FieldSpec(name, ColumnType(kind))


@pytest.mark.parametrize("kind", COLUMNS, ids=str)
def test_a_column_is_packed_as_its_values_are(kind):
    column = COLUMNS[kind]
    one = key_packer(7, [field(kind)], nulls=True)
    assert column_packer(7, field(kind), nulls=True)([*column, None]) == [
        one({"k": value}) for value in [*column, None]
    ]
    assert packed_columns(7, [field(kind)], [column]) == [one({"k": value}) for value in column]
    both = [field(kind), field(Kind.STRING, "l")]
    pair = key_packer(7, both)
    texts = [str(place) for place in range(len(column))]
    expected = [pair({"k": value, "l": text}) for value, text in zip(column, texts, strict=True)]
    assert packed_columns(7, both, [column, texts]) == expected
    assert packed_columns(7, both, [[], []]) == column_packer(7, field(kind))([]) == []


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Kind.STRING, 1),
        (Kind.STRING, b"a"),
        (Kind.STRING, "a\ud800"),
        (Kind.INTEGER, "1"),
        (Kind.INTEGER, 1 << 63),
        (Kind.STRING, None),
        (Kind.DECIMAL, Decimal("NaN")),
        (Kind.DECIMAL, Decimal("sNaN")),
        (Kind.DECIMAL, Decimal("Infinity")),
    ],
)
def test_one_that_is_no_key_is_refused_wherever_it_stands(kind, wrong):
    for column in ([wrong], [*COLUMNS[kind], wrong], [wrong, *COLUMNS[kind]]):
        with pytest.raises(DataError) as raised:
            packed_columns(7, [field(kind)], [column])
        assert raised.value.code == "MS-2120"


def test_a_lone_surrogate_is_refused_among_several_key_columns():
    both = key_packer(7, [field(Kind.INTEGER), field(Kind.STRING, "l")])
    with pytest.raises(DataError) as raised:
        both({"k": 1, "l": "\ud800"})
    assert raised.value.code == "MS-2120"


def test_decimals_that_differ_in_their_last_digit_are_two_keys():
    pack = key_packer(7, [field(Kind.DECIMAL)])
    many = "12345678901234567890123456789012345678"  # 38 digits
    whole, fraction = Decimal(many), Decimal(f"0.{many}")
    for one in (whole, fraction):
        last = Decimal((0, (1,), one.as_tuple().exponent))
        assert pack({"k": one.copy_negate()}) != pack({"k": one})
        assert pack({"k": _plus(one, last)}) != pack({"k": one})
    assert pack({"k": Decimal("1.50")}) == pack({"k": Decimal("1.5")})
    assert pack({"k": Decimal("-0")}) == pack({"k": Decimal("0.00")})


def _plus(one, other):
    return Context(prec=60).add(one, other)
