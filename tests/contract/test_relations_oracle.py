"""Oracle as a source of rows, against the one contract, over a double of its driver; no Oracle has been asked."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import oracledb
import pyarrow as pa
import pytest

import oracle_double
from mainspring.adapters.oracle.problems import turned
from mainspring.adapters.oracle.source import OracleSource, open_source
from mainspring.errors import MainspringError
from mainspring.ports.source import Range, Relation, SourceSettings
from mainspring.testing.relations import RelationsContract

URL = "oracle://me:secret-word@127.0.0.1:1/shop"


class TestOracle(RelationsContract):
    empty_text_is_null = True

    @pytest.fixture
    def server(self):
        return oracle_double.Server()

    @pytest.fixture
    def reader(self, server):
        return OracleSource(SourceSettings(url=URL), server.connect)

    @pytest.fixture
    def filling(self, server):
        return server.fill

    @pytest.fixture
    def unreachable(self):
        """The real driver, and nobody there."""
        return open_source(SourceSettings(url=URL, connect_timeout=2), Path("/nowhere"))

    def test_statements_are_oracles_own(self, reader, server, filling):
        filling("orders", {"n": "int64", "at": "zoned", "d": "date", "c": "char(8)"}, [])
        schema = pa.schema([("n", pa.int64()), ("at", pa.timestamp("us", "UTC")), ("c", pa.string())])
        moment = datetime(2026, 3, 1, 12, 0, 0, 5, UTC)
        list(reader.rows(Relation("orders", "orders"), schema, Range("at", moment - timedelta(minutes=10), moment)))
        list(reader.rows(Relation("orders", "orders"), schema, Range("d", None, date(2026, 3, 1))))
        first, second = [text for text in server.heard if text.startswith("select to_char")]
        assert first == (
            """select to_char("N", 'TM9', 'NLS_NUMERIC_CHARACTERS=''.,''') as "n", sys_extract_utc("AT") as "at", """
            """rtrim("C") as "c" from orders mainspring_source """
            """where (mainspring_source."AT" >= timestamp '2026-03-01 11:50:00.000005 +00:00' """
            """and mainspring_source."AT" <= timestamp '2026-03-01 12:00:00.000005 +00:00') """
            """or mainspring_source."AT" is null order by mainspring_source."AT\""""
        )
        assert """"D" <= to_date('2026-03-01 00:00:00', 'YYYY-MM-DD HH24:MI:SS')""" in second
        assert server.heard.count("set transaction read only") >= 2

    def test_a_time_with_a_zone_as_a_cursor(self, reader, filling):
        moment = datetime(2026, 3, 1, 12, 0, 0, 5, UTC)
        filling("orders", {"at": "zoned"}, [(moment,), (moment + timedelta(hours=1),)])
        of, schema = Relation("orders", "orders"), pa.schema([("at", pa.timestamp("us", "UTC"))])
        assert reader.newest(of, "at") == moment + timedelta(hours=1)
        found = list(reader.rows(of, schema, Range("at", None, moment)))
        assert pa.Table.from_batches(found).column("at").to_pylist() == [moment]

    def test_a_date_with_a_time_of_day_is_no_date(self, reader, filling):
        filling("orders", {"d": "date", "n": "number(30, 10)"}, [(datetime(2026, 3, 1, 12), Decimal("-0.5"))])
        number = ("n", pa.decimal128(38, 10))
        of, schema = Relation("orders", "orders"), pa.schema([("d", pa.timestamp("us", "UTC")), number])
        (row,) = pa.Table.from_batches(list(reader.rows(of, schema, None))).to_pylist()
        assert row == {"d": datetime(2026, 3, 1, 12), "n": "-0.5"}
        with pytest.raises(MainspringError) as caught:
            list(reader.rows(of, pa.schema([("d", pa.date32()), number]), None))
        assert caught.value.code == "MS-2151"

    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            ("ORA-00942", "MS-2150"), ("ORA-01722", "MS-2150"), ("ORA-01017", "MS-4221"), ("DPY-6001", "MS-4221"),
            ("DPY-4024", "MS-4222"), ("DPY-6005", "MS-4220"), ("ORA-03113", "MS-4220"),
        ],
    )  # fmt: skip
    def test_faults(self, code, expected):
        error = turned(oracle_double.fault(code, "so it is"), "db:1521/shop", Relation("orders", "orders"))
        assert (error.code, bool(error.fix)) == (expected, True)

    def test_who_may_not_and_options_that_are_none(self, server):
        for settings, code in [
            (SourceSettings(url=URL.replace("secret-word", "other")), "MS-4221"),
            (SourceSettings(url=URL, options={"colour": "red"}), "MS-3042"),
        ]:
            with pytest.raises(MainspringError) as caught:
                OracleSource(settings, server.connect).answers()
            assert caught.value.code == code

    def test_the_real_driver_has_what_is_asked_of_it(self):
        """Names of types, of arguments and of methods, as this release has them."""
        for kind in ("NUMBER", "TIMESTAMP_TZ", "TIMESTAMP_LTZ", "CHAR", "NCHAR", "DATE", "JSON", "ROWID"):
            assert getattr(oracledb, f"DB_TYPE_{kind}").name == f"DB_TYPE_{kind}"
        assert {"fetch_df_batches", "call_timeout", "version", "close"} <= set(dir(oracledb.Connection))
        assert set(oracledb.connect.__wrapped__.__annotations__) >= oracle_double.SIGNATURE
