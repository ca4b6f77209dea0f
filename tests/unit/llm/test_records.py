"""Records of requests: in SQLite with every column, texts redacted; spans for a collector; nothing on the way."""

from __future__ import annotations

import asyncio
import http.server
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from gateway_kit import Scripted, route, says
from mainspring.errors import ServiceError
from mainspring.llm.cost import Price, PriceTable
from mainspring.llm.gateway import Gateway
from mainspring.llm.keys import digest_of
from mainspring.llm.otlp import OtlpSpans, span_of
from mainspring.llm.otlp_messages import INTERNAL, OtlpSpan, otlp_request, rejected_of
from mainspring.llm.record import CallRecord, Recorder
from mainspring.llm.store import CALL_COLUMNS, CallStore, redacted
from mainspring.llm.values import Call, Caller, Key, Limits
from mainspring.ports.llm import Error, Generation, Image, Message
from otlp_kit import exported

KEY = Key(id="web", digest=digest_of("sk-very-secret-key-0123456789"), tenant="acme", limits=Limits(money_micro=10**9))
PRICE = Price(provider="p", model="inner", version="2026-11", input=1_000_000, output=2_000_000)


def ask(text: str, stream: bool = False) -> Call:
    request = Generation("0123456789abcdef01234567", "chat", (Message("user", (text,)),))
    return Call(request, Caller(KEY, "acme", "ann"), "chat", stream, ("a" * 32, "b" * 16))


def answered(path: Path, calls: Sequence[Call], engine: Scripted, **options: Any) -> Recorder:
    recorder = Recorder([CallStore(path, lambda: 0.5)])
    recorder.start()

    async def scenario() -> None:
        gateway = Gateway([route(engine, **options)], keys=[KEY], recorder=recorder, prices=PriceTable([PRICE]))
        for call in calls:
            await gateway.complete(call)

    asyncio.run(scenario())
    assert recorder.flush()
    recorder.stop()
    return recorder


def rows(path: Path, table: str) -> list[dict[str, Any]]:
    database = sqlite3.connect(path)
    database.row_factory = sqlite3.Row
    found = [dict(row) for row in database.execute(f"select * from {table}")]
    database.close()
    return found


def test_a_request_is_one_row_with_every_column(tmp_path: Path) -> None:
    path = tmp_path / "log" / "llm.db"
    answered(path, [ask("hi")], Scripted(says("a", "b")))
    row = rows(path, "llm_call")[0]
    assert list(row) == list(CALL_COLUMNS)
    taken = {name: row[name] for name in ("queue_us", "ttft_us", "total_us", "at_ns", "user_hash")}
    assert all(taken.values())
    assert row["user_hash"] != "ann"
    assert {name: value for name, value in row.items() if name not in taken} == {
        "id": "0123456789abcdef01234567",
        "trace_id": "a" * 32,
        "span_id": "0123456789abcdef",
        "parent_id": "b" * 16,
        "endpoint": "chat",
        "api": "chat",
        "tenant": "acme",
        "key_id": "web",
        "model_alias": "chat",
        "model_version": "inner",
        "upstream": "chat-1",
        "prompt_id": "",
        "stream": 0,
        "status": "ok",
        "error_kind": "",
        "finish_reason": "stop",
        "attempt": 1,
        "hedged": 0,
        "cache": "",
        "similarity": None,
        "prompt_tokens": 5,
        "cached_tokens": 0,
        "cache_write_tokens": 0,
        "completion_tokens": 2,
        "reasoning_tokens": 0,
        "usage_source": "engine",
        "cost_micro": 9,
        "price_version": "2026-11",
        "body_in": None,
        "body_out": None,
    }


SECRETS = [
    "sk-abcdefghijklmnop1234",
    "ann.smith@example.org",
    "4111 1111 1111 1111",
    "+41 44 668 18 00",
    "CH93 0076 2011 6238 5295 7",
    "Bearer abcdefghijklmnopqrstuvwx",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcdefghijk",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_trap_15_what_is_secret_is_taken_out_of_texts(secret: str) -> None:
    shown = redacted(f"before {secret} after")
    assert secret not in shown
    assert shown.startswith("before [")
    assert shown.endswith("] after")


def test_what_is_no_secret_stays() -> None:
    text = "In 2026, 3.14159 of 12,000 rows at 10:30 were v1.2.3 (see RFC 9110, page 42)."
    assert redacted(text) == text


def test_trap_15_no_secret_reaches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "llm.db"
    picture = Image(b"PICTURE-BYTES" * 10, "image/png")
    call = ask(" ".join(SECRETS))
    turns = (*call.generation.messages, Message("user", (picture, "what is it?")))
    call.generation = Generation(call.generation.id, "chat", turns)
    answered(path, [call], Scripted(says(*SECRETS)), bodies=1.0)
    row = rows(path, "llm_call")[0]
    bodies = {body["hash"]: body for body in rows(path, "llm_body")}
    assert set(bodies) == {row["body_in"], row["body_out"]}
    assert b"what is it?" in bodies[row["body_in"]]["bytes"]
    assert bodies[row["body_in"]]["expires_at"] > row["at_ns"]
    for file in tmp_path.glob("llm.db*"):
        raw = file.read_bytes()
        assert b"PICTURE-BYTES" not in raw
        assert KEY.digest not in raw
        assert b"sk-very-secret" not in raw
        assert not [secret for secret in SECRETS if secret.encode() in raw]


def test_texts_of_faults_are_kept_and_of_others_a_share(tmp_path: Path) -> None:
    path = tmp_path / "llm.db"
    answered(path, [ask("hi")], Scripted(says("a")), bodies=0.4)
    answered(path, [ask("hi")], Scripted([Error("invalid", "no")]), bodies=0.4)
    answered(path, [ask("hi")], Scripted([Error("invalid", "no")]), bodies=0.0)
    assert [bool(row["body_in"]) for row in rows(path, "llm_call")] == [False, True, False]


def test_expired_texts_are_removed(tmp_path: Path) -> None:
    now = [10**18]
    store = CallStore(tmp_path / "llm.db", lambda: 0.0, body_seconds=1.0, clock_ns=lambda: now[0])
    recorder = Recorder([store])
    recorder.start()

    async def scenario() -> None:
        gateway = Gateway([route(Scripted(says("a")), bodies=1.0)], recorder=recorder)
        await gateway.complete(ask("first"))
        assert recorder.flush()
        now[0] += 2 * 10**9
        await gateway.complete(ask("second"))
        assert recorder.flush()

    asyncio.run(scenario())
    recorder.stop()
    assert not [row for row in rows(tmp_path / "llm.db", "llm_body") if b"first" in row["bytes"]]
    assert len(rows(tmp_path / "llm.db", "llm_call")) == 2


def test_what_was_spent_is_known_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "llm.db"
    answered(path, [ask("hi")] * 3, Scripted(says("a", "b")))
    store = CallStore(path, lambda: 1.0)
    day = 86_400.0
    assert store.spent({"key:web": day, "tenant:acme": day, "model:chat": day, "key:other": day}) == {
        "key:web": 27,
        "tenant:acme": 27,
        "model:chat": 27,
        "key:other": 0,
    }
    store.close()


def test_batches_of_more_rows_than_one_statement_takes_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "llm.db"
    answered(path, [ask("hi")] * 250, Scripted(says("a", "b")))
    store = CallStore(path, lambda: 1.0)
    assert store.spent({"key:web": 86_400.0}) == {"key:web": 250 * 9}
    store.close()


class Broken:
    def __init__(self) -> None:
        self.seen = 0

    def write(self, records: Sequence[CallRecord]) -> None:
        self.seen += len(records)
        raise OSError("disk full")

    def close(self) -> None: ...


def test_a_sink_that_fails_costs_its_records_and_nothing_else(tmp_path: Path) -> None:
    told: list[str] = []
    broken = Broken()
    recorder = Recorder([broken, CallStore(tmp_path / "llm.db", lambda: 1.0)], told.append)
    recorder.start()

    async def scenario() -> None:
        gateway = Gateway([route(Scripted(says("a")))], recorder=recorder)
        for _ in range(5):
            assert not isinstance(await gateway.complete(ask("hi")), Error)
            assert recorder.flush()

    asyncio.run(scenario())
    recorder.stop()
    assert broken.seen == 5
    assert told == ["LLM records are not written: OSError: disk full"]
    assert len(rows(tmp_path / "llm.db", "llm_call")) == 5


def test_the_ring_is_bounded_and_says_what_it_dropped() -> None:
    recorder = Recorder([], ring=10)  # not started: nothing empties it

    async def scenario() -> None:
        gateway = Gateway([route(Scripted(says("a")))], recorder=recorder)
        for _ in range(25):
            await gateway.complete(ask("hi"))

    asyncio.run(scenario())
    assert recorder.dropped == 15


@pytest.fixture
def answering() -> list[bytes]:
    """What the collector answers; the last of it, else nothing."""
    return []


@pytest.fixture
def collector(answering: list[bytes]) -> Iterator[tuple[str, list[Any]]]:
    seen: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = exported(self.headers["content-type"], self.rfile.read(int(self.headers["content-length"])))
            seen.append((self.path, self.headers["x-team"], body))
            answer = answering[-1] if answering else b""
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()
    thread.join()


def test_requests_are_spans_for_a_collector(collector: tuple[str, list[Any]]) -> None:
    url, seen = collector
    recorder = Recorder(
        [OtlpSpans(url, "shop", {"x-team": "ml"}, spans=lambda record: [span_of(record)], scope="mainspring.llm")]
    )
    recorder.start()

    async def scenario() -> None:
        gateway = Gateway([route(Scripted(says("a", "b")))], recorder=recorder)
        await gateway.complete(ask("hi"))

    asyncio.run(scenario())
    assert recorder.flush()
    recorder.stop()
    path, team, body = seen[0]
    assert (path, team) == ("/v1/traces", "ml")
    resource = body["resourceSpans"][0]
    assert resource["resource"]["attributes"] == [{"key": "service.name", "value": {"stringValue": "shop"}}]
    span = resource["scopeSpans"][0]["spans"][0]
    assert (span["traceId"], span["parentSpanId"], span["name"]) == ("a" * 32, "b" * 16, "chat chat")
    assert int(span["endTimeUnixNano"]) > int(span["startTimeUnixNano"])
    values = {pair["key"]: pair["value"] for pair in span["attributes"]}
    assert values["gen_ai.operation.name"] == {"stringValue": "chat"}
    assert values["gen_ai.usage.input_tokens"] == {"intValue": "5"}
    assert not any("cache" in name and name.startswith("mainspring") for name in values)
    assert values["gen_ai.response.finish_reasons"] == {"arrayValue": {"values": [{"stringValue": "stop"}]}}


def test_attributes_of_all_kinds_are_what_they_were() -> None:
    facts: dict[str, object] = {
        "text": "é\ud800", "true": True, "false": False, "zero": 0, "less": -1, "most": 2**63 - 1, "least": -(2**63),
        "float": -0.5, "list": ["a", 2, 2.5, True, []], "long": "x" * 70_000, "beyond": 2**63, "none": None,
    }  # fmt: skip
    span = OtlpSpan("0a" * 16, "0b" * 8, "", "", INTERNAL, 0, 2**64 - 1, facts, "why")
    message = ExportTraceServiceRequest.FromString(otlp_request("", "scope", [span, span]))
    (scope,) = message.resource_spans[0].scope_spans
    first, second = scope.spans
    assert first == second
    assert (scope.scope.name, first.trace_id.hex(), first.span_id.hex()) == ("scope", "0a" * 16, "0b" * 8)
    assert (first.parent_span_id, first.end_time_unix_nano, first.kind) == (b"", 2**64 - 1, 1)
    assert (first.status.code, first.status.message) == (2, "why")
    found = {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in first.attributes}
    items = found.pop("list").values
    assert [getattr(item, str(item.WhichOneof("value"))) for item in items[:4]] == ["a", 2, 2.5, True]
    assert items[4].WhichOneof("value") == "array_value"
    del facts["list"]
    assert found == facts | {"text": "é?", "beyond": str(2**63), "none": "None"}
    assert not otlp_request("shop", "s", []).endswith(b"\x12\x00")


def test_a_collector_that_is_not_there_is_said_with_its_remedy() -> None:
    with pytest.raises(ServiceError) as error:
        OtlpSpans("http://127.0.0.1:9", "shop", spans=lambda record: [span_of(record)], scope="s").write([])
    assert error.value.code == "MS-4060"
    assert error.value.fix


def loaded_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


SERVING = """
import asyncio, sys
sys.path.insert(0, 'tests')
from gateway_kit import CHAT, Scripted, live, says
with live(Scripted(says('x'))) as server:
    assert server.call('/v1/chat/completions', CHAT)[0] == 200
    assert server.events('/v1/chat/completions', {**CHAT, 'stream': True})
"""


def test_traps_3_16_17_answering_loads_no_forbidden_library() -> None:
    loaded = loaded_after(SERVING)
    assert "mainspring" in loaded
    forbidden = {"httpx", "requests", "pydantic", "opentelemetry", "litellm", "guardrails", "openai", "anthropic"}
    assert not loaded & (forbidden | {"langchain", "langchain_core", "jinja2", "numpy", "sqlalchemy"})


def test_trap_16_no_forbidden_package_is_in_the_lock() -> None:
    lock = (Path(__file__).parents[3] / "requirements.lock").read_text("utf-8")
    names = {line.partition("==")[0] for line in lock.splitlines() if "==" in line and not line.startswith(" ")}
    assert not names & {"litellm", "guardrails-ai", "gpt4all", "openllm", "llama-cpp-python"}


def test_what_a_collector_rejects_although_it_answers_is_counted_and_told_once_in_a_while(
    collector: tuple[str, list[Any]], answering: list[bytes]
) -> None:
    answers = [(3, "too old"), (2, "too old"), (0, ""), (4, ""), (0, "half of the quota is used")]
    span = OtlpSpan("0a" * 16, "0b" * 8, "", "infer", INTERNAL, 1, 2, {})
    told: list[str] = []
    rejected: list[int] = []
    now = [100.0]
    sink: OtlpSpans[Any] = OtlpSpans(
        collector[0], "shop", spans=lambda record: [span], scope="s", told=told.append, rejected=rejected.append,
        clock=lambda: now[0],
    )  # fmt: skip
    for spans, why in answers:
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans, answer.partial_success.error_message = spans, why
        answering.append(answer.SerializeToString())
        sink.write([None])
        now[0] += 40.0
    assert rejected == [3, 2, 4]
    assert told == [
        "the OpenTelemetry collector has rejected 3 spans: too old",
        "the OpenTelemetry collector has rejected 6 spans: it does not say why",
    ]
    now[0] += 60.0
    sink.write([None])
    assert told[2:] == ["the collector warns: half of the quota is used"]


@given(st.integers(0, 2**63 - 1), st.text(st.characters(codec="utf-8")), st.binary(max_size=40), st.integers(0, 60))
def test_answers_of_collectors_are_read_whatever_they_are(spans: int, why: str, noise: bytes, cut: int) -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans, answer.partial_success.error_message = spans, why
    data = answer.SerializeToString()
    assert rejected_of(data) == (spans, why)
    for broken in (noise, data[:cut], data[:cut] + noise):
        found = rejected_of(broken)  # it raises nothing
        assert found[0] >= 0
