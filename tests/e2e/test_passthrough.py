"""``/passthrough/{name}/...`` over sockets: what goes to an upstream and what never does, streams, limits, records."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from gateway_kit import Live, Scripted, route, says
from llm_upstreams import END, HANG, HEAD, KEY, LOSE, response, sse
from llm_upstreams import Scripted as Upstream
from mainspring.adapters.anthropic.engine import AnthropicEngine
from mainspring.adapters.anthropic.settings import AnthropicSettings
from mainspring.adapters.openai.engine import OpenAIEngine
from mainspring.adapters.openai.settings import OpenAISettings
from mainspring.errors import ConfigError
from mainspring.llm.cost import Price, PriceTable
from mainspring.llm.gateway import Gateway
from mainspring.llm.guards import Patterns
from mainspring.llm.keys import digest_of
from mainspring.llm.metered import Meter
from mainspring.llm.record import CallRecord, Recorder
from mainspring.llm.values import Key, Limits, Timeouts
from mainspring.ports.llm import Usage
from mainspring.upstream.passing import may_pass, passed_paths

OURS = "client-secret-of-ada"
BEARER = {"authorization": f"Bearer {OURS}"}
JSON = {**BEARER, "content-type": "application/json"}
OK = response(b'{"ok": true, "usage": {"prompt_tokens": 7, "completion_tokens": 3}}')


class Kept(Recorder):
    """Keeps the records that it is given."""

    def __init__(self) -> None:
        super().__init__([])
        self.records: list[CallRecord] = []

    def add(self, record: CallRecord) -> None:
        self.records.append(record)


def drained(live: Live, engine: Any) -> None:
    """Close the engine's connections, on the loop that they are on."""
    asyncio.run_coroutine_threadsafe(engine.drain(2.0), live.loop).result(60)


def played(
    scripts: list[Any],
    scenario: Callable[[Live, Upstream], Any],
    *,
    limits: Limits | None = None,
    engine: Mapping[str, Any] | None = None,
    body: int = 1 << 20,
    **options: Any,
) -> tuple[Any, Upstream, list[CallRecord]]:
    """Play a scenario, in a thread, against a gateway before a scripted upstream."""
    kept = Kept()

    async def play() -> tuple[Any, Upstream]:
        async with Upstream(*scripts) as server:
            settings = {"passthrough": ("/*",), "first_token": 5.0, **(engine or {})}
            behind = OpenAIEngine(OpenAISettings(url=server.url, model="inner", key=KEY, **settings))
            key = Key(id="ada", digest=digest_of(OURS), limits=limits or Limits())
            prices = PriceTable([Price(provider="p", model="inner", version="1", input=1_000_000, output=2_000_000)])
            gateway = Gateway([route(behind, **options)], keys=[key], recorder=kept, prices=prices)

            def work() -> Any:
                with Live(gateway, body=body) as live:
                    try:
                        return scenario(live, server)
                    finally:
                        drained(live, behind)

            return await asyncio.to_thread(work), server

    found, server = asyncio.run(play())
    return found, server, kept.records


def test_bytes_go_both_ways_as_they_are() -> None:
    sound = bytes(range(256)) * 40
    answer = response(sound[::-1], kind="audio/wav", etag='"7"')

    def scenario(live: Live, server: Upstream) -> Any:
        path = "/passthrough/chat/audio/transcriptions?language=fr&x=%2F"
        return live.call(path, sound, {**BEARER, "content-type": "audio/wav", "accept": "audio/*"})

    (status, headers, body), server, records = played([[answer]], scenario)
    assert (status, body) == (200, sound[::-1])
    assert (headers["content-type"], headers["etag"]) == ("audio/wav", '"7"')
    head, sent = server.requests[0]
    assert head.startswith(b"POST /v1/audio/transcriptions?language=fr&x=%2F HTTP/1.1\r\n")
    assert b"\r\ncontent-type: audio/wav\r\n" in head
    assert b"\r\naccept: audio/*\r\n" in head
    assert sent == sound
    record = records[0]
    assert (record.api, record.status, record.caller.key.id, record.usage) == (
        "passthrough", "ok", "ada", Usage(0, 0, source="counted"),
    )  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_every_method(method: str) -> None:
    def scenario(live: Live, server: Upstream) -> Any:
        return live.call("/passthrough/chat/files/f-1", None, BEARER, method)

    (status, _, body), server, _ = played([[OK]], scenario)
    assert (status, json.loads(body)["ok"]) == (200, True)
    assert server.requests[0][0].startswith(method.encode() + b" /v1/files/f-1 HTTP/1.1\r\n")


def test_no_credential_of_the_caller_and_no_hop_by_hop_header_goes_upstream() -> None:
    told = {
        **BEARER,
        "x-api-key": OURS,
        "api-key": OURS,
        "cookie": f"session={OURS}",
        "proxy-authorization": f"Basic {OURS}",
        "x-forwarded-for": "10.1.2.3",
        "openai-organization": "another",
        "openai-beta": "assistants=v2",
        "te": "trailers",
        "upgrade": "h2c",
        "connection": "x-mine, keep-alive",
        "x-mine": OURS,
        "user-agent": "client/1",
    }
    answer = response(
        b"{}",
        set_cookie="a=1",
        openai_organization="our-own",
        x_ratelimit_remaining_requests="7",
        keep_alive="timeout=5",
        server="inside-7",
        openai_processing_ms="12",
    )

    def scenario(live: Live, server: Upstream) -> Any:
        return live.call("/passthrough/chat/files", None, told)

    (status, headers, _), server, _ = played([[answer]], scenario)
    head = server.requests[0][0].decode().lower()
    assert status == 200
    assert OURS not in head
    names = [line.split(":")[0] for line in head.split("\r\n")[1:] if line]
    assert sorted(names) == ["accept", "authorization", "host", "openai-beta"] or sorted(names) == [
        "authorization", "host", "openai-beta",
    ]  # fmt: skip
    assert f"authorization: bearer {KEY}" in head
    assert headers["openai-processing-ms"] == "12"
    for name in ("set-cookie", "openai-organization", "keep-alive", "x-ratelimit-remaining-requests"):
        assert name not in headers
    assert "inside-7" not in str(headers)


@pytest.mark.parametrize(
    "path",
    [
        "/../admin", "/files/../../admin", "/%2e%2e/admin", "/files/%2e%2e%2fadmin", "/files/..%5cadmin",
        "//evil.example/x", "/files//x", "/files/%00", "/files/a%0d%0aX-Key:1", "/files/a%20b", "/files/%252e%252e/x",
        "/files/x%3fa=b", "/files/x%23", "/./files", "/", "", "/files/\xe9", "/files/" + "x" * 3000,
        "/files?key=abc", "/files?API_KEY=abc", "/files?a=1&access_token=b", "/files?x=%0d%0a&subscription-key=c",
    ],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    def scenario(live: Live, server: Upstream) -> Any:
        with socket.create_connection(("127.0.0.1", live.port), timeout=60) as client:
            head = f"GET /passthrough/chat{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            client.sendall(f"{head}authorization: Bearer {OURS}\r\n\r\n".encode("latin-1"))
            return client.recv(65536)

    found, server, _ = played([[OK]], scenario)
    assert int(found.split(b" ")[1]) in (400, 404), found
    assert server.requests == []


def test_only_what_the_settings_allow_and_only_for_who_may() -> None:
    chat = {"model": "inner", "messages": []}

    def scenario(live: Live, server: Upstream) -> Any:
        return [
            live.call("/passthrough/chat/audio/speech", chat, JSON)[0],
            live.call("/passthrough/chat/moderations", chat, JSON)[0],
            live.call("/passthrough/chat/files", None, BEARER)[0],
            live.call("/passthrough/chat/moderations/x", chat, JSON)[0],
            live.call("/passthrough/nobody/moderations", chat, JSON)[0],
            live.call("/passthrough/chat/moderations", chat, {"content-type": "application/json"})[0],
            live.call("/passthrough/chat/moderations", {"model": "dearer"}, JSON)[0],
            live.call("/passthrough/chat/moderations", b"{", JSON)[0],
            live.call("/passthrough/chat/moderations", None, BEARER, "HEAD")[0],
            live.call("/passthrough/chat/moderations", None, BEARER, "TRACE")[0],
        ]

    allowed = {"passthrough": ("/audio/*", "/moderations")}
    found, server, _ = played([[OK]], scenario, engine=allowed)
    assert found == [200, 200, 404, 404, 404, 401, 404, 400, 405, 405]
    assert len(server.requests) == 2


def test_a_guarded_model_and_an_engine_without_a_wire_pass_nothing_on() -> None:
    def scenario(live: Live, server: Upstream) -> Any:
        return live.call("/passthrough/chat/files", None, BEARER)

    guards = [Patterns("cards", "[0-9]{16}", 16)]
    found, server, _ = played([[OK]], scenario, output_guards=guards)
    assert found[0] == 400
    assert b"guarded" in found[2]
    assert server.requests == []
    with Live(Gateway([route(Scripted(says("x")))])) as live:
        assert live.call("/passthrough/chat/files")[0] == 404


def test_paths_of_the_setting() -> None:
    assert may_pass("/audio/speech", ("/audio/*",))
    assert not may_pass("/audio", ("/audio/*",))
    assert not may_pass("/audiox/speech", ("/audio/*",))
    assert may_pass("/any/thing", ("/*",))
    for bad in ("audio", "/a/../b", "/a b", "/*/x", "*", "/a?b", "", "/./a"):
        with pytest.raises(ConfigError) as caught:
            passed_paths([bad])
        assert caught.value.code == "MS-3182"
    with pytest.raises(ConfigError):
        OpenAIEngine(OpenAISettings(url="http://x/v1", passthrough=("files",)))


# -- streams -----------------------------------------------------------------------------------------------------------


def opened(live: Live, path: str, body: Any = None, headers: Mapping[str, str] = JSON) -> socket.socket:
    """A client that has sent its request and reads by itself."""
    data = json.dumps(body or {"model": "inner", "stream": True}).encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    client = socket.create_connection(("127.0.0.1", live.port), timeout=60)
    client.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\n{lines}content-length: {len(data)}\r\n\r\n".encode() + data)
    return client


def test_trap_2_a_stream_is_passed_on_part_by_part() -> None:
    used = {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 2}}

    def scenario(live: Live, server: Upstream) -> Any:
        began = time.monotonic()
        client = opened(live, "/passthrough/chat/chat/completions")
        seen = b""
        while b"first" not in seen:
            seen += client.recv(4096)
        first = time.monotonic() - began
        while b"0\r\n\r\n" not in seen:
            seen += client.recv(4096)
        client.close()
        return first, time.monotonic() - began, seen

    script = [HEAD, sse({"first": 1}), 1.0, sse({"second": 2}, used, b"[DONE]"), END]
    (first, whole, seen), _, records = played([script], scenario)
    assert first < 0.7
    assert whole >= 1.0
    assert seen.index(b"first") < seen.index(b"second") < seen.index(b"[DONE]")
    assert records[0].usage == Usage(11, 2)
    assert records[0].cost_micro == 11 + 2 * 2
    assert 0 < records[0].ttft_us < 700_000


@pytest.mark.parametrize("script", [[HANG], [HEAD, sse({"first": 1}), HANG]])
def test_trap_1_a_client_that_leaves_cancels_the_upstream(script: list[Any]) -> None:
    def scenario(live: Live, server: Upstream) -> Any:
        client = opened(live, "/passthrough/chat/chat/completions")
        while not server.requests:
            time.sleep(0.005)
        if len(script) > 1:
            client.recv(4096)
        time.sleep(0.1)
        client.close()
        began = time.monotonic()
        while not server.left and time.monotonic() - began < 5:
            time.sleep(0.002)
        lane = live.gateway.lanes["chat"]
        while lane.upstreams[0].requests and time.monotonic() - began < 5:
            time.sleep(0.005)
        account = live.gateway.account("key:ada")
        assert account is not None
        return time.monotonic() - began, lane.upstreams[0].outstanding, account.under_way

    (seconds, outstanding, under_way), server, records = played([script], scenario, limits=Limits(concurrent=2))
    assert server.left == 1
    assert (outstanding, under_way) == (0, 0)
    assert seconds < 1.0
    assert [record.status for record in records] == ["left"]


def test_trap_4_a_slow_reader_slows_the_upstream() -> None:
    written = 0

    async def play() -> int:
        nonlocal written

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal written
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: 268435456\r\n\r\n"
            )
            try:
                for _ in range(256):
                    writer.write(b"x" * (1 << 20))
                    await writer.drain()
                    written += 1
            except ConnectionError:
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        engine = OpenAIEngine(OpenAISettings(url=f"http://127.0.0.1:{port}/v1", model="inner", passthrough=("/*",)))

        def work() -> int:
            with Live(Gateway([route(engine)])) as live:
                client = socket.create_connection(("127.0.0.1", live.port), timeout=60)
                client.sendall(b"GET /passthrough/chat/files/big/content HTTP/1.1\r\nhost: x\r\n\r\n")
                client.recv(1000)
                time.sleep(1.0)
                seen = written
                client.close()
                drained(live, engine)
                return seen

        found = await asyncio.to_thread(work)
        server.close()
        return found

    assert asyncio.run(play()) < 64


def test_an_upstream_that_breaks_off() -> None:
    def stream(live: Live, server: Upstream) -> Any:
        return live.events("/passthrough/chat/chat/completions", {"model": "inner"}, JSON)

    events, _, records = played([[HEAD, sse({"first": 1}), LOSE]], stream)
    assert "first" in events[0]
    assert json.loads(events[-1].removeprefix("data: "))["error"]["type"] == "server_error"
    assert (records[0].status, records[0].error_kind) == ("error", "upstream")

    def plain(live: Live, server: Upstream) -> Any:
        seen = b""
        with opened(live, "/passthrough/chat/files/f/content") as client:
            while part := client.recv(4096):
                seen += part
        return seen

    cut = b"HTTP/1.1 200 OK\r\ncontent-type: audio/wav\r\ncontent-length: 100\r\n\r\nhalf"
    seen, _, _ = played([[cut, 0.1, LOSE]], plain)
    assert b"half" in seen
    assert b"\r\n0\r\n" not in seen, "nobody takes it for whole"


@pytest.mark.parametrize(
    ("script", "engine", "options", "status"),
    [
        ([HANG], {"first_token": 0.2}, {}, 504),
        ([LOSE], {}, {}, 502),
        ([response(b"{}", status="204 No Content")], {}, {}, 204),
        ([b"garbage\r\n\r\n"], {}, {}, 502),
    ],
)
def test_what_goes_wrong_before_an_answer(script: Any, engine: Any, options: Any, status: int) -> None:
    def scenario(live: Live, server: Upstream) -> Any:
        return live.call("/passthrough/chat/files/f", None, BEARER, "DELETE")

    (found, _, body), _, _ = played([script], scenario, engine=engine, **options)
    assert found == status
    assert KEY.encode() not in body


def test_an_answer_has_its_time() -> None:
    def scenario(live: Live, server: Upstream) -> Any:
        began = time.monotonic()
        events = live.events("/passthrough/chat/chat/completions", {"model": "inner"}, JSON)
        return time.monotonic() - began, events

    script = [HEAD, *[sse({"n": 1}), 0.2] * 20, END]
    (seconds, events), _, records = played([script], scenario, timeouts=Timeouts(total=1.0))
    assert seconds < 2.5
    assert json.loads(events[-1].removeprefix("data: "))["error"]["type"] == "timeout_error"
    assert records[0].error_kind == "timeout"


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "seen", "shown"),
    [
        ("401 Unauthorized", f"bad key {KEY}".encode(), 502, b"credentials"),
        ("403 Forbidden", b"org 7 may not", 502, b"credentials"),
        ("500 Internal Server Error", b"stack of inside-7", 502, b"the upstream answered 500"),
        ("302 Found", b"", 502, b"redirects are not followed"),
        (
            "400 Bad Request",
            f'{{"error": {{"message": "no {KEY}"}}}}'.encode(),
            400,
            b'{"error": {"message": "no ***"}}',
        ),
        ("429 Too Many Requests", b'{"error": "slow"}', 429, b'{"error": "slow"}'),
    ],
)
def test_refusals_of_the_upstream(status: str, body: bytes, seen: int, shown: bytes) -> None:
    whole = response(body, status=status, location="http://evil.example/", retry_after="3", www_authenticate="Basic")
    cut = whole.index(b"\r\n\r\n") + 4 + len(body) // 2

    def scenario(live: Live, server: Upstream) -> Any:
        return live.call("/passthrough/chat/files", None, BEARER)

    (found, headers, told), _, records = played([[whole[:cut], 0.1, whole[cut:]]], scenario, limits=Limits(tokens=100))
    assert found == seen
    assert shown in told
    assert KEY.encode() not in told
    assert b"inside-7" not in told
    assert "location" not in headers
    assert "www-authenticate" not in headers
    assert records[0].status == "error"
    assert (headers.get("retry-after") == "3") == (status[:3] in ("400", "429", "500"))


def test_limits_are_reserved_and_settled() -> None:
    asked = {"model": "inner", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}

    def scenario(live: Live, server: Upstream) -> Any:
        account = live.gateway.account("key:ada")
        assert account is not None
        found = [live.call("/passthrough/chat/chat/completions", asked, JSON)]
        used = account.used_tokens, account.used_micro
        found.append(live.call("/passthrough/chat/chat/completions", {**asked, "max_tokens": 500}, JSON))
        found.append(live.call("/passthrough/chat/files", None, BEARER))
        found.append(live.call("/passthrough/chat/files", None, BEARER))
        return found, used, account.under_way

    limits = Limits(tokens=300, requests=3, money_micro=100_000)
    (found, used, under_way), server, records = played([[OK]], scenario, limits=limits)
    assert [status for status, _, _ in found] == [200, 429, 200, 200]
    assert used == (10, 7 + 3 * 2)
    assert found[0][1]["x-ratelimit-limit-tokens"] == "300"
    assert found[1][1]["x-should-retry"] == "false", "more than the window has at all"
    assert under_way == 0
    assert len(server.requests) == 3
    assert sum(record.cost_micro for record in records) == 3 * 13


def test_a_body_that_is_too_large_is_refused() -> None:
    def scenario(live: Live, server: Upstream) -> Any:
        return live.call("/passthrough/chat/files", b"x" * 5000, BEARER)[0]

    found, server, _ = played([[OK]], scenario, body=4096)
    assert (found, server.requests) == (413, [])


def test_requests_at_once_are_those_of_the_route() -> None:
    def scenario(live: Live, server: Upstream) -> Any:
        first = opened(live, "/passthrough/chat/chat/completions")
        while not server.requests:
            time.sleep(0.005)
        refused = live.call("/passthrough/chat/files", None, BEARER)
        first.close()
        began = time.monotonic()
        while (status := live.call("/passthrough/chat/files", None, BEARER)[0]) != 200 and time.monotonic() - began < 5:
            time.sleep(0.01)
        return refused[0], status

    found, _, _ = played([[HANG], [OK]], scenario, concurrent=1, queue=0)
    assert found == (429, 200)


def test_anthropics_upstreams_too() -> None:
    used = {"input_tokens": 5, "cache_read_input_tokens": 4, "output_tokens": 1}
    begun = {"type": "message_start", "message": {"usage": used}}
    ended = {"type": "message_delta", "usage": {"output_tokens": 9}}
    kept = Kept()

    async def play() -> tuple[Any, Upstream]:
        async with Upstream([HEAD, sse(begun, ended), END]) as server:
            settings = AnthropicSettings(
                "inner", server.url.removesuffix("/v1"), key=KEY, passthrough=("/messages", "/messages/*")
            )
            engine = AnthropicEngine(settings)
            gateway = Gateway([route(engine)], recorder=kept)

            def work() -> Any:
                with Live(gateway) as live:
                    headers = {"x-api-key": OURS, "anthropic-beta": "b-1", "anthropic-version": "2020-01-01"}
                    headers["content-type"] = "application/json"
                    found = live.call("/passthrough/chat/messages", {"model": "inner"}, headers)
                    drained(live, engine)
                    return found

            return await asyncio.to_thread(work), server

    (status, _, _), server = asyncio.run(play())
    head = server.requests[0][0].decode()
    assert status == 200
    assert head.startswith("POST /v1/messages HTTP/1.1\r\n")
    assert f"x-api-key: {KEY}\r\n" in head
    assert OURS not in head
    assert "anthropic-beta: b-1\r\n" in head
    assert head.count("anthropic-version") == 1, "the version of the settings"
    assert kept.records[0].usage == Usage(9, 9, cached=4)


# -- usage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "parts", "usage"),
    [
        ("application/json", [b'{"usage": {"prompt_tok', b'ens": 4, "completion_tokens": 2}}'], Usage(4, 2)),
        (
            "application/json; charset=utf-8",
            [b'{"usage": {"input_tokens": 9, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 3}}}'],
            Usage(9, 5, cached=3),
        ),
        (
            "text/event-stream",
            [b'data: {"type": "response.completed", "response": {"usage": {"input_tokens": 9, "output_tok',
             b'ens": 5, "output_tokens_details": {"reasoning_tokens": 2}}}}\n\n'],
            Usage(9, 5, reasoning=2),
        ),
        ("text/event-stream", [b"data: {}\n\n" * 3, b": ping\n\n", b"data: {}\n\n"], Usage(25, 4, source="counted")),
        ("application/json", [b'{"no": "usage"}'], Usage(25, 4, source="counted")),
        ("application/json", [b"[1, 2"], Usage(25, 2, source="counted")),
        ("audio/wav", [b"x" * 10_000], Usage(0, 0, source="counted")),
        ("application/json", [b'{"usage": {"input_tokens": "many", "output_tokens": -3}}'], Usage(0, 0)),
    ],
)  # fmt: skip
def test_usage_is_read_beside_the_bytes(kind: str, parts: list[bytes], usage: Usage) -> None:
    meter = Meter(kind, asked=100)
    for part in parts:
        meter.feed(part)
    assert meter.usage() == usage
    assert meter.usage() == usage, "asked twice"


def test_chunks_of_any_size_are_the_same_to_the_meter() -> None:
    stream = b'data: {"a": 1}\n\ndata: {"usage": {"prompt_tokens": 4, "completion_tokens": 2}}\n\ndata: [DONE]\n\n'
    for size in range(1, len(stream)):
        meter = Meter("text/event-stream", 100)
        for start in range(0, len(stream), size):
            meter.feed(stream[start : start + size])
        assert meter.usage() == Usage(4, 2)
