"""Topics into a log: what messages say as rows, and each message once whatever breaks off, against a list."""

from __future__ import annotations

import base64
import itertools
import json
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.declare.record import Field, Record, fields_of
from mainspring.errors import DataError, ServiceError
from mainspring.features.logs.ingest import REASON
from mainspring.features.logs.log import SourceTable
from mainspring.features.sources.decode import prepare_messages
from mainspring.features.sources.messages import extract_topic
from mainspring.ports.source import Messages

NAMES = itertools.count()
SCHEMA = pa.schema(
    [
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("at", pa.timestamp("us", "UTC")),
        ("key", pa.binary()),
        ("value", pa.binary()),
    ]
)


class Change(Record):
    id: int
    name: str | None
    price: Decimal | None = Field(precision=10, scale=2)
    score: float | None = Field(ge=0)
    day: date | None
    raw: bytes | None
    flag: bool | None
    place: list[float] | None = Field(length=2)
    at: datetime
    gone: bool | None


SOURCE = SourceTable("changes", fields_of(Change), "at", deleted="gone", zone="Europe/Berlin")
WHOLE = {
    "id": 7, "name": "é", "price": 1.1, "score": 2, "day": "2026-01-02", "raw": "AP8=", "flag": True, "place": [1, 0.5],
    "at": "2026-01-01T10:00:00+02:00", "other": 1,
}  # fmt: skip


def message(**changed):
    return json.dumps({**WHOLE, **changed}).encode()


def test_a_json_object_is_a_row() -> None:
    prepared = prepare_messages(SOURCE, [message(), None, b'{"id": 1, "at": "2026-07-01T12:00:00"}'])
    first, second = prepared.rows.to_pylist()
    assert first == {
        "id": 7, "name": "é", "price": Decimal("1.10"), "score": 2.0, "day": date(2026, 1, 2), "raw": b"\x00\xff",
        "flag": True, "place": [1.0, 0.5], "at": datetime(2026, 1, 1, 8, tzinfo=UTC), "gone": None,
    }  # fmt: skip
    assert second["at"] == datetime(2026, 7, 1, 10, tzinfo=UTC), "without a zone it is the source's"
    assert (second["price"], len(prepared.set_aside)) == (None, 0)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"{", "the message is no JSON"),
        (b"\xff\xfe", "the message is no JSON"),
        (b"[1]", "the message is no JSON object"),
        (message(id="7"), "id is no int64"),
        (message(id=7.5), "id is no int64"),
        (message(id=2**63), "id is no int64"),
        (message(id=True), "id is no int64"),
        (message(name=5), "name is no string"),
        (message(price=1.005), "price is no decimal"),
        (message(price=1e9), "price is no decimal"),
        (message(price="NaN"), "price is no decimal"),
        (message(day="2026-13-01"), "day is no date"),
        (message(raw="?"), "raw is no bytes"),
        (message(place=[1]), "place is no vector"),
        (message(place=[1, None]), "place is no vector"),
        (message(at=5), "at is no timestamp"),
        (message(at="2026-03-29T02:30:00"), "at is no timestamp"),  # the hour that summer time leaves out
        (message(at="2026-10-25T02:30:00"), "at is no timestamp"),  # and the one that it repeats
        (message(at=None), "at is null"),
        (message(id=None), "id is null"),
        (message(score=-1), "score is not >= 0"),
        (json.dumps({"op": "c", "before": None, "after": None}).encode(), "the change holds no 'after'"),
    ],
)
def test_what_is_no_row_is_set_aside_and_holds_up_nothing(sent: bytes, reason: str) -> None:
    prepared = prepare_messages(SOURCE, [message(id=1), sent, message(id=2)])
    assert prepared.rows.column("id").to_pylist() == [1, 2]
    assert prepared.set_aside.column(REASON).to_pylist() == [reason]
    assert prepared.report == {reason: 1}


def envelope(op, schema=None, before=None, after=None):
    payload = {"op": op, "before": before, "after": after, "source": {"table": "changes"}, "ts_ms": 1}
    return json.dumps(payload if schema is None else {"schema": schema, "payload": payload}).encode()


def test_changes_as_debezium_tells_them() -> None:
    moment = 1_767_225_600_123_456
    columns = [
        {"field": "id", "type": "int64"},
        {"field": "day", "type": "int32", "name": "io.debezium.time.Date"},
        {"field": "at", "type": "int64", "name": "io.debezium.time.MicroTimestamp"},
        {
            "field": "price",
            "type": "bytes",
            "name": "org.apache.kafka.connect.data.Decimal",
            "parameters": {"scale": "2"},
        },
    ]
    schema = {"type": "struct", "fields": [{"field": side, "fields": columns} for side in ("before", "after")]}
    row = {
        "id": 1,
        "day": 20_455,
        "at": moment,
        "price": base64.b64encode((-150).to_bytes(2, "big", signed=True)).decode(),
    }
    sent = [
        envelope("c", schema, after=row),
        envelope("u", schema, before=row, after={**row, "id": 2}),
        envelope("d", schema, before=row),
        None,
        envelope("r", after={"id": 4, "at": "2026-01-01T00:00:00Z"}),
    ]
    prepared = prepare_messages(SOURCE, sent)
    assert prepared.report == {}
    rows = prepared.rows.to_pylist()
    assert [(one["id"], one["gone"]) for one in rows] == [(1, False), (2, False), (1, True), (4, False)]
    # A column without a zone is told as if it were UTC; the source says what it is.
    assert rows[0]["at"] == datetime(2025, 12, 31, 23, 0, 0, 123456, tzinfo=UTC)
    assert (rows[0]["day"], rows[0]["price"]) == (date(2026, 1, 2), Decimal("-1.50"))
    plain = SourceTable("changes", SOURCE.fields, "at", zone="UTC")
    (reason,) = prepare_messages(plain, [sent[0], sent[2]]).report
    assert "no deleted=" in reason
    broken = envelope("c", schema, after={**row, "day": "soon"})
    assert prepare_messages(SOURCE, [broken, sent[0]]).report == {"day is not what its schema says": 1}


class Topic:
    """A topic that is lists, and breaks off after so many batches."""

    topic = "orders"

    def __init__(self) -> None:
        self.held: dict[int, list[bytes | None]] = {0: [], 1: [], 2: []}
        self.low = dict.fromkeys(self.held, 0)
        self.breaks: int | None = None

    def ends(self):
        return {number: (self.low[number], len(values)) for number, values in self.held.items()}

    def messages(self, begin, end):
        batches = []
        for number, values in self.held.items():
            for offset in range(begin[number], end[number]):
                batches.append({"partition": number, "offset": offset, "at": 0, "value": values[offset]})
        for count, place in enumerate(range(0, len(batches), 2)):
            if count == self.breaks:
                raise ServiceError("gone", code="MS-4220", fix="wait")
            yield pa.RecordBatch.from_pylist(batches[place : place + 2], SCHEMA)

    def answers(self):
        return {}

    def close(self):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


def opened(folder):
    return open_tables(DeltaSettings(), folder), SourceTable(f"c{next(NAMES)}", SOURCE.fields, "at", deleted="gone")


def extract(tables, source, topic, part=3):
    assert isinstance(topic, Messages)
    return extract_topic(tables, source, topic, now_us=lambda: 1_800_000_000_000_000, commit_rows=part)


def held(tables, source, *columns):
    rows = tables.read(source.log).sort_by("_seq").to_pylist()
    return [tuple(row[column] for column in columns) for row in rows]


@settings(max_examples=15)
@given(
    rounds=st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=10), st.sampled_from([None, 0, 1, 2])
        ),
        min_size=1,
        max_size=4,
    ),
    part=st.integers(1, 5),
)
def test_each_message_once(folder, rounds, part) -> None:
    """Equal ones too; 0 is a message that is no row."""
    tables, source = opened(folder)
    topic, expected = Topic(), Counter()
    for sent, breaks in rounds:
        for partition, value in sent:
            topic.held[partition].append(b"oops" if value == 0 else message(id=value))
            expected[value] += 1
        topic.breaks = breaks
        if breaks is not None:
            try:
                extract(tables, source, topic, part)
            except ServiceError:
                topic.breaks = None
                extract(tables, source, topic, part)
        else:
            extract(tables, source, topic, part)
        assert Counter(value for (value,) in held(tables, source, "id")) == +Counter({**expected, 0: 0})
        before = tables.version(source.log)
        topic.breaks = None
        extract(tables, source, topic, part)
        assert tables.version(source.log) == before


def test_what_was_there_first_is_history_to_its_end(folder) -> None:
    tables, source = opened(folder)
    topic = Topic()
    topic.held[1] = [message(id=number) for number in range(9)]
    topic.breaks = 2
    with pytest.raises(ServiceError):
        extract(tables, source, topic)
    topic.breaks = None
    topic.held[0] = [message(id=100)]
    topic.held[1] += [message(id=101)]
    extract(tables, source, topic)
    found = held(tables, source, "id", "_assumed")
    assert sorted(found) == [*((number, True) for number in range(9)), (100, False), (101, False)]


def test_messages_that_were_deleted_before_they_were_read(folder) -> None:
    tables, source = opened(folder)
    topic = Topic()
    topic.held[0] = [message(id=number) for number in range(6)]
    topic.low[0] = 1
    _, told, lost = extract(tables, source, topic)
    assert (told.read, lost) == (5, 0), "what was gone before the first read is nobody's loss"
    topic.held[0] += [message(id=number) for number in range(6, 12)]
    topic.low[0] = 9
    _, told, lost = extract(tables, source, topic)
    assert (told.added, lost) == (3, 3)


def test_a_topic_that_was_made_anew(folder) -> None:
    tables, source = opened(folder)
    topic = Topic()
    topic.held[0] = [message(id=number) for number in range(6)]
    extract(tables, source, topic)
    topic.held[0] = [message(id=0)]
    with pytest.raises(DataError) as caught:
        extract(tables, source, topic)
    assert caught.value.code == "MS-2154"


def test_two_runs_at_once(folder) -> None:
    tables, source = opened(folder)
    topic = Topic()
    topic.held[0] = [message(id=number) for number in range(4)]
    inner = topic.messages

    def meanwhile(begin, end):
        for batch in inner(begin, end):
            topic.messages = inner
            extract(tables, source, topic, 100)
            yield batch

    topic.messages = meanwhile
    with pytest.raises(ServiceError) as caught:
        extract(tables, source, topic, 100)
    assert caught.value.code == "MS-4223"
    assert held(tables, source, "id") == [(number,) for number in range(4)]


class Account(Record):
    id: int
    balance: Decimal = Field(precision=38, scale=2)
    at: datetime


@pytest.mark.parametrize("unscaled", [10**38 - 1, 1 - 10**38, 12345678901234567890123456789012345678])
def test_decimals_of_38_digits_come_to_the_last(unscaled: int) -> None:
    account = SourceTable("accounts", fields_of(Account), "at")
    balance = Decimal((int(unscaled < 0), tuple(map(int, str(abs(unscaled)))), -2))
    kind = {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}}
    columns = [{"field": "id", "type": "int64"}, {"field": "balance", **kind}, {"field": "at", "type": "string"}]
    schema = {"type": "struct", "fields": [{"field": side, "fields": columns} for side in ("before", "after")]}
    sent = base64.b64encode(unscaled.to_bytes(17, "big", signed=True)).decode()
    row = {"id": 1, "at": "2026-01-01T00:00:00Z"}
    plain = json.dumps({**row, "balance": str(balance)}).encode()
    prepared = prepare_messages(account, [envelope("c", schema, after={**row, "balance": sent}), plain])
    assert prepared.report == {}
    assert prepared.rows.column("balance").to_pylist() == [balance, balance]
    more = json.dumps({**row, "balance": f"{balance}1"}).encode()
    assert prepare_messages(account, [plain, more]).rows.num_rows == 1, "one digit more than the column has"
