"""Which requests become spans, what their headers say, and what is counted of their calls."""

from __future__ import annotations

import asyncio
import string
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from mainspring.ports.trace import CURRENT, read_traceparent
from mainspring.server.answering.records import request_spans
from mainspring.serving.counts import ModelCounts
from mainspring.serving.telemetry import Metrics
from mainspring.serving.tracing import RequestSpan, Tracing
from mainspring.upstream.client import Client, Place

T, S = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEX = st.text("0123456789abcdef", min_size=32, max_size=32)


@given(HEX, HEX.map(lambda text: text[:16]), st.integers(0, 255))
def test_a_traceparent_is_read_as_it_was_written(trace: str, span: str, flags: int) -> None:
    found = read_traceparent(f"00-{trace}-{span}-{flags:02x}".encode())
    if set(trace) == {"0"} or set(span) == {"0"}:
        assert found is None
    else:
        assert found == (trace, span, flags % 2 == 1)


@given(st.binary(max_size=70) | st.text(string.hexdigits + "-", max_size=70).map(str.encode))
def test_what_is_no_traceparent_begins_a_trace(text: bytes) -> None:
    found = read_traceparent(text)
    assert found is None or text.strip().startswith(f"{text.strip()[:2].decode()}-{found[0]}-{found[1]}".encode())


def test_versions_of_the_future_and_faulty_ones() -> None:
    good = f"{T}-{S}-01"
    assert read_traceparent(f"01-{good}-more".encode()) == (T, S, True)
    for text in (
        f"00-{good}-more",
        f"ff-{good}",
        f"00-{T.upper()}-{S}-01",
        f"00-{T}-{S}-1",
        "",
        f"00-{'0' * 32}-{S}-01",
    ):
        assert read_traceparent(text.encode()) is None


def test_errors_the_slow_and_a_sample_are_kept() -> None:
    kept: list[RequestSpan] = []
    now, draws = [0], iter([0.5, 0.04, 0.5, 0.5])
    tracing = Tracing(kept.append, 0.05, 1.0, lambda: next(draws), lambda: now[0])

    def over(header: str | None, took: int, fault: str = "") -> bool:
        before = len(kept)
        trace = tracing.begin(None if header is None else header.encode())
        assert CURRENT.get() is trace
        now[0] += took
        tracing.end(trace, "POST infer", {"http.route": "infer"}, fault)
        return len(kept) > before

    second = 1_000_000_000
    assert not over(None, second - 1)
    assert over(None, 1), "drawn"
    assert over(None, second), "slow"
    assert over(None, 1, "500"), "failed"
    assert over(f"00-{T}-{S}-01", 1), "whoever asks keeps it"
    assert not over(f"00-{T}-{S}-00", 1), "and whoever does not says so for all that it asks"
    assert over(f"00-{T}-{S}-00", second)
    assert (kept[-1].trace, kept[-1].parent) == (T, S)
    assert len({span.span for span in kept}) == len(kept)
    CURRENT.set(None)


def test_a_call_is_counted_by_model_version_and_wire_and_becomes_a_part_of_its_trace(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "m.bin")
    counts = ModelCounts(metrics, "shop")
    kept: list[RequestSpan] = []
    tracing = Tracing(kept.append, 1.0, 1.0)

    async def ask() -> None:
        trace = tracing.begin(None)
        answering = counts.of("late", "3", "oip", "stable")
        answering.answered(1, 4, 5_000_000, 128, 32)
        answering.traced(4, 2_000_000, 5_000_000)
        tracing.end(trace, "POST infer", {})

    asyncio.run(ask())
    counts.of("late", "3", "oip", "stable").failed()
    labels = {"app": "shop", "model": "late", "version": "3", "protocol": "oip", "role": "stable"}
    assert metrics.read("mainspring_inferences_total", outcome="answered", **labels) == 1
    assert metrics.read("mainspring_inferences_total", outcome="failed", **labels) == 1
    assert metrics.read("mainspring_inference_bytes_total", direction="in", **labels) == 128
    assert metrics.read("mainspring_inference_bytes_total", direction="out", **labels) == 32
    assert metrics.read("mainspring_inference_seconds_sum", **labels) == 0.005
    families = {one.name: one.type for one in text_string_to_metric_families(metrics.render()[1].decode())}
    assert families["mainspring_inference_bytes"] == "counter"
    whole, queue, compute = request_spans(kept[0])
    assert (whole.kind, queue.name, compute.name) == (2, "queue", "compute")
    assert {queue.parent, compute.parent} == {whole.span}
    assert queue.ended - queue.begun == 2_000_000
    assert compute.ended - compute.begun == 5_000_000
    assert whole.facts["mainspring.rows"] == 4


def test_who_is_asked_for_a_request_is_told_its_trace() -> None:
    heads: list[bytes] = []

    async def over() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while head := await reader.readuntil(b"\r\n\r\n"):
                heads.append(head)
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                if len(heads) == 2:
                    writer.close()
                    return

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            client = Client(Place("127.0.0.1", server.sockets[0].getsockname()[1]))
            await client.request("GET", "/health").head(60)
            trace = Tracing(lambda span: None, 0.0, 1.0).begin(f"00-{T}-{S}-01".encode())
            await client.request("GET", "/models").head(60)
            assert f"\r\ntraceparent: 00-{T}-{trace.span}-01\r\n".encode() in heads[1]
            CURRENT.set(None)

    asyncio.run(over())
    assert b"traceparent" not in heads[0]
