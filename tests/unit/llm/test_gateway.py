"""The pipeline without a socket: limits, routing, retries, guards, schemas, usage and cost, as engines misbehave."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import msgspec
import pytest

from gateway_kit import Scripted, route, says
from mainspring.llm.cost import Price, PriceTable
from mainspring.llm.fold import Answer
from mainspring.llm.gateway import Gateway
from mainspring.llm.guards import AskedPatterns, Patterns, Refusal
from mainspring.llm.keys import digest_of
from mainspring.llm.record import CallRecord, Recorder
from mainspring.llm.refused import Refused
from mainspring.llm.run import Run
from mainspring.llm.values import Call, Caller, Key, Limits, Retry, Route, Target, Timeouts
from mainspring.ports.llm import (
    Capabilities,
    End,
    Error,
    Event,
    Generation,
    Message,
    Reasoning,
    Sampling,
    Schema,
    Start,
    Text,
    Tool,
    ToolChoice,
    ToolDelta,
    Usage,
)


def ask(text: str = "hi there", **fields: Any) -> Generation:
    return Generation("id", "chat", (Message("user", (text,)),), **fields)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


async def plain(gateway: Gateway, request: Generation | None = None, caller: Caller | None = None) -> Answer | Refused:
    done = await gateway.complete(Call(request or ask(), caller or Caller(), "chat", stream=False))
    return done if isinstance(done, Refused) else done[1]


async def streamed(gateway: Gateway, request: Generation | None = None, caller: Caller | None = None) -> list[Event]:
    return [event async for event in gateway.generate(request or ask(), caller)]


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


class Kept(Recorder):
    """Keeps the records that it is given."""

    def __init__(self) -> None:
        super().__init__([])
        self.records: list[CallRecord] = []

    def add(self, record: CallRecord) -> None:
        self.records.append(record)


BUSY = Error("overloaded", "busy", retryable=True, status=503)


def flaky(*first: Error | list[Event]) -> Scripted:
    """An engine whose first requests go as given, and the others well."""
    left = list(first)

    def script(request: Generation) -> list[Event]:
        step = left.pop(0) if left else says("ok")
        return [step] if isinstance(step, Error) else step

    return Scripted(script)


def targets(*engines: Scripted, **options: Any) -> Route:
    found = tuple(Target(name=f"u{n}", engine=engine, model=f"m{n}") for n, engine in enumerate(engines))
    return Route(name="chat", targets=found, **options)


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [Limits(tokens=1000), Limits(money_micro=1000), Limits(requests=37)])
def test_200_concurrent_requests_never_exceed_a_budget(limits: Limits) -> None:
    async def slow(request: Generation) -> AsyncIterator[Event]:
        yield Start(2)
        for _ in range(request.sampling.max_tokens or 0):
            await asyncio.sleep(0)
            yield Text("word ", 1)
        yield End(("length",), Usage(2, request.sampling.max_tokens or 0))

    engine = Scripted(lambda request: slow(request))
    key = Key(id="k", digest=digest_of("k"), limits=limits)
    price = Price(provider="p", model="inner", version="1", input=1_000_000, output=1_000_000)
    gateway = Gateway([route(engine)], keys=[key], prices=PriceTable([price]))

    async def scenario() -> list[Any]:
        request = ask(sampling=Sampling(max_tokens=20))
        return await asyncio.gather(*(plain(gateway, request, Caller(key)) for _ in range(200)))

    found = run(scenario())
    answered = [answer for answer in found if isinstance(answer, Answer)]
    account = gateway.account("key:k")
    assert account is not None
    assert 0 < len(answered) < 200
    assert len(engine.requests) == len(answered)
    assert account.used_tokens == 22 * len(answered)
    if limits.tokens:
        assert account.used_tokens <= 1000
    if limits.money_micro:
        assert account.used_micro == 22 * len(answered) <= 1000
    if limits.requests:
        assert len(answered) == 37
    refusals = [refused for refused in found if isinstance(refused, Refused)]
    assert {refused.error.kind for refused in refusals} == {"rate"}
    assert account.under_way == 0


def test_200_concurrent_requests_keep_to_a_concurrency() -> None:
    engine = Scripted([Start(1), 0.001, Text("x", 1), End(("stop",), Usage(1, 1))])
    key = Key(id="k", digest=digest_of("k"), limits=Limits(concurrent=5))
    gateway = Gateway([route(engine)], keys=[key])

    async def scenario() -> list[Any]:
        return await asyncio.gather(*(plain(gateway, caller=Caller(key)) for _ in range(200)))

    found = run(scenario())
    assert engine.most_under_way == 5
    assert sum(isinstance(answer, Answer) for answer in found) == 5


def test_a_reservation_is_settled_by_end_by_error_and_by_leaving() -> None:
    key = Key(id="k", digest=digest_of("k"), limits=Limits(tokens=10_000))
    caller = Caller(key)
    ends = says("a", "b", "c")
    breaks: list[Event | float] = [Start(5), Text("a", 1), Error("crashed", "gone")]
    hangs: list[Event | float] = [Start(5), Text("a", 1), Text("b", 1), 60.0]

    async def scenario(steps: Sequence[Event | float], leave: bool) -> int:
        gateway = Gateway([route(Scripted(list(steps)))], keys=[key])
        account = gateway.account("key:k")
        assert account is not None
        events = gateway.generate(ask(), caller)
        async for event in events:
            assert account.used_tokens > 4000, "reserved"
            if leave and isinstance(event, Text) and event.text == "b":
                break
        await events.aclose()  # type: ignore[attr-defined]
        assert account.under_way == 0
        return account.used_tokens

    assert run(scenario(ends, False)) == 8
    assert run(scenario(breaks, False)) == 6
    assert run(scenario(hangs, True)) == 7


def test_the_exact_count_is_asked_for_only_when_the_bound_does_not_fit() -> None:
    engine = Scripted(says("x"))
    words = ("word " * 100).strip()
    for limit, counted in ((10_000, 0), (300, 1)):
        engine.counted = 0
        key = Key(id="k", digest=digest_of("k"), limits=Limits(tokens=limit))
        answer = run(
            plain(Gateway([route(engine)], keys=[key]), ask(words, sampling=Sampling(max_tokens=50)), Caller(key))
        )
        assert isinstance(answer, Answer)
        assert engine.counted == counted


def test_a_busy_route_lets_so_many_wait_and_refuses_the_rest_with_a_time_to_come_back() -> None:
    engine = Scripted([Start(1), 0.01, Text("x", 1), End(("stop",), Usage(1, 1))])
    gateway = Gateway([route(engine, concurrent=2, queue=3)])

    async def scenario() -> list[Any]:
        tasks = [asyncio.create_task(plain(gateway)) for _ in range(8)]
        await asyncio.sleep(0)
        tasks[2].cancel()  # one that waits leaves; its place is free again
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = run(scenario())
    assert engine.most_under_way == 2
    assert sum(isinstance(answer, Answer) for answer in found) == 4
    refusals = [answer for answer in found if isinstance(answer, Refused)]
    assert [refused.error.retry_after for refused in refusals] == [1.0] * 3
    lane = gateway.lanes["chat"]
    assert lane.gate is not None
    assert (lane.gate.inside, lane.gate.waiting) == (0, 0)


# -- routing and retries -----------------------------------------------------------------------------------------------


def test_trap_11_a_fault_is_retried_at_another_target_and_then_at_the_fallback() -> None:
    bad, good = Scripted([BUSY]), Scripted(says("good"))
    first = targets(bad, good)
    for _ in range(6):
        assert text_of(run(streamed(Gateway([first])))) == "good"
    other = msgspec.structs.replace(targets(good), name="other")
    gateway = Gateway([targets(bad, bad, fallback=("other",)), other])
    assert text_of(run(streamed(gateway))) == "good"


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (Error("overloaded", "x", retryable=True, status=503), 3),
        (Error("upstream", "x", retryable=True, status=500), 3),
        (Error("upstream", "x", retryable=True, status=501), 1),
        (Error("invalid", "x", retryable=True, status=400), 1),
        (Error("auth", "x", retryable=True, status=401), 1),
        (Error("invalid", "x", retryable=True, status=422), 1),
        (Error("rate", "x", retryable=True, status=429, retry_after=0.01), 3),
        (Error("rate", "x", retryable=True, status=429, retry_after=60.0), 1),
        (Error("crashed", "x", retryable=False), 1),
    ],
)
def test_trap_11_what_is_retried_and_what_is_not(error: Error, tries: int) -> None:
    engine = Scripted([error])
    refused = run(plain(Gateway([route(engine, retry=Retry(wait_s=0.001))])))
    assert isinstance(refused, Refused)
    assert refused.error == error
    assert len(engine.requests) == tries


def test_trap_11_retry_after_is_obeyed() -> None:
    engine = flaky(Error("rate", "slow down", retryable=True, retry_after=0.2, status=429))
    gateway = Gateway([route(engine)])

    async def scenario() -> float:
        began = asyncio.get_running_loop().time()
        assert isinstance(await plain(gateway), Answer)
        return asyncio.get_running_loop().time() - began

    assert run(scenario()) >= 0.2


def test_trap_11_retries_stay_within_a_tenth_of_the_requests() -> None:
    engine = Scripted([BUSY])

    async def scenario() -> None:
        gateway = Gateway([route(engine, retry=Retry(wait_s=0.0), timeouts=Timeouts())], monotonic=lambda: clock[0])
        for _ in range(300):
            clock[0] += 1000.0  # the breaker is not what is tested
            await plain(gateway)

    clock = [0.0]
    run(scenario())
    assert 300 < len(engine.requests) <= 300 + 30 + 3


def test_a_stream_is_not_retried_after_its_first_event_and_a_plain_answer_is() -> None:
    half: list[Event] = [Start(1), Text("ha", 1), Error("crashed", "x", retryable=True)]
    events = run(streamed(Gateway([route(engine := flaky(half))])))
    assert isinstance(events[-1], Error)
    assert len(engine.requests) == 1
    answer = run(plain(Gateway([route(engine := flaky(half))])))
    assert isinstance(answer, Answer)
    assert answer.text() == "ok"
    assert len(engine.requests) == 2
    assert engine.requests[0].id != engine.requests[1].id


def test_an_open_breaker_answers_at_once_without_asking() -> None:
    engine = Scripted([Error("crashed", "x")])
    gateway = Gateway([route(engine)])
    for _ in range(5):
        run(plain(gateway))
    refused = run(plain(gateway))
    assert isinstance(refused, Refused)
    assert refused.error.kind == "overloaded"
    assert refused.error.retry_after
    assert len(engine.requests) == 5


def test_requests_go_where_the_fewest_tokens_are_outstanding() -> None:
    async def scenario() -> list[int]:
        engines = [Scripted([Start(1), 0.05, Text("x", 1), End(("stop",), Usage(1, 1))]) for _ in range(3)]
        gateway = Gateway([targets(*engines)])
        big = ask(sampling=Sampling(max_tokens=900))
        small = ask(sampling=Sampling(max_tokens=100))
        tasks = [asyncio.create_task(plain(gateway, big))]
        await asyncio.sleep(0.005)
        for _ in range(8):
            tasks.append(asyncio.create_task(plain(gateway, small)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return sorted(len(engine.requests) for engine in engines)

    assert run(scenario()) == [1, 4, 4]


def test_a_hedge_asks_a_second_target_and_cancels_the_slower_one() -> None:
    slow = Scripted([Start(1), 30.0, Text("slow", 1)])
    quick = Scripted(says("quick"))
    kept = Kept()

    # Which of two idle targets is first is the prompt's business: ask until it was the slow one.
    async def until_slow() -> None:
        for number in range(40):
            gateway = Gateway([targets(slow, quick, hedge_s=0.02)], recorder=kept)
            assert text_of(await streamed(gateway, ask(f"prompt {number}"))) == "quick"
            if slow.requests:
                break
        assert slow.under_way == 0
        assert len(slow.gone) == len(slow.requests) == 1

    run(until_slow())
    assert kept.records[-1].hedged
    assert kept.records[-1].target is not None
    assert kept.records[-1].target.name == "u1"


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([60.0], "took too long to accept"),
        ([Start(1), Text("a", 1), 60.0], "stopped answering"),
        ([Start(1), *[s for n in range(50) for s in (Text("a", 1), 0.01)], 60.0], "stopped answering"),
    ],
)
def test_silence_ends_in_a_timeout(steps: list[Event | float], said: str) -> None:
    engine = Scripted(steps)
    timeouts = Timeouts(accept=0.05, between=0.1, total=0.3)
    events = run(streamed(Gateway([route(engine, timeouts=timeouts, retry=Retry(attempts=1))])))
    assert isinstance(events[-1], Error)
    assert events[-1].kind == "timeout"
    assert said in events[-1].message
    assert engine.under_way == 0


def test_an_engine_that_breaks_its_contract_is_a_fault_and_no_crash() -> None:
    async def raises(request: Generation) -> AsyncIterator[Event]:
        yield Start(1)
        raise RuntimeError("secret-host:1234")

    for script in (lambda request: raises(request), [Start(1), Text("a", 1)], []):
        events = run(streamed(Gateway([route(Scripted(script), retry=Retry(attempts=1))])))  # type: ignore[arg-type]
        assert isinstance(events[-1], Error)
        assert "secret" not in events[-1].message
    wide = [Start(1), Text("a", 1, choice=7), Text("b", 1), End(("stop",), Usage(1, 1))]
    assert text_of(run(streamed(Gateway([route(Scripted(wide))])))) == "b"


def test_users_are_split_by_a_hash_and_stay_where_they_are() -> None:
    one, two = Scripted(says("one")), Scripted(says("two"))
    gateway = Gateway([route(one, split=(("new", 0.25),)), route(two, "new")])

    async def scenario() -> list[str]:
        return [text_of(await streamed(gateway, caller=Caller(user=f"user{n % 400}"))) for n in range(800)]

    found = run(scenario())
    assert found[:400] == found[400:]
    assert 60 < found[:400].count("two") < 140


# -- what is checked before and after ----------------------------------------------------------------------------------

SMALL = Capabilities(context=100, context_from="llms.chat.context, mainspring.toml:4", tools=True, grammar=True)


def test_trap_7_an_over_long_prompt_is_refused_with_both_counts_and_never_sent() -> None:
    engine = Scripted(says("x"), SMALL)
    refused = run(plain(Gateway([route(engine)]), ask("word " * 150)))
    assert isinstance(refused, Refused)
    assert refused.error.kind == "context_length"
    assert "150 tokens" in refused.error.message
    assert "100 tokens (set by llms.chat.context, mainspring.toml:4)" in refused.error.message
    assert refused.code == "context_length_exceeded"
    assert not engine.requests


def test_trap_7_excess_max_tokens_are_clamped_or_refused_as_declared() -> None:
    engine = Scripted(says("x"), SMALL)
    request = ask("word " * 40, sampling=Sampling(max_tokens=90))
    assert isinstance(run(plain(Gateway([route(engine)]), request)), Answer)
    assert engine.requests[0].sampling.max_tokens == 60
    refused = run(plain(Gateway([route(engine, excess="refuse")]), request))
    assert isinstance(refused, Refused)
    assert "90 tokens of answer and 40 of prompt" in refused.error.message
    assert len(engine.requests) == 1


@pytest.mark.parametrize(
    ("request_", "can", "why"),
    [
        (ask(), Capabilities(chat=False), "no chat template"),
        (Generation("1", "chat", prompt="x"), Capabilities(completion=False), "conversations only"),
        (ask(tools=(Tool("t"),)), Capabilities(), "cannot call tools"),
        (ask(schema=Schema()), Capabilities(), "JSON schema"),
        (ask(sampling=Sampling(logprobs=2)), Capabilities(), "log probabilities"),
        (ask(sampling=Sampling(n=2)), Capabilities(), "n must be 1"),
    ],
)
def test_trap_6_what_an_engine_cannot_do_is_refused(request_: Generation, can: Capabilities, why: str) -> None:
    engine = Scripted(says("x"), can)
    refused = run(plain(Gateway([route(engine)]), request_))
    assert isinstance(refused, Refused)
    assert refused.error.kind == "invalid"
    assert why in refused.error.message
    assert not engine.requests


NUMBER = Schema({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


def test_trap_9_an_answer_that_misses_its_schema_is_asked_for_again_or_a_fault() -> None:
    engine = flaky(says('{"n": "one"}'), says('{"n": 1}'))
    answer = run(plain(Gateway([route(engine, retry=Retry(wait_s=0.0))]), ask(schema=NUMBER)))
    assert isinstance(answer, Answer)
    assert answer.text() == '{"n": 1}'
    events = run(streamed(Gateway([route(Scripted(says('{"n": "one"}')))]), ask(schema=NUMBER)))
    assert isinstance(events[-1], Error)
    assert "does not fit its schema: at /n" in events[-1].message


def test_trap_9_an_answer_that_a_limit_cut_short_is_reported_as_cut_short() -> None:
    events = run(streamed(Gateway([route(Scripted(says('{"n": ', reason="length")))]), ask(schema=NUMBER)))
    assert isinstance(events[-1], End)
    assert events[-1].reasons == ("length",)


@pytest.mark.parametrize(
    ("name", "arguments", "choice", "ok"),
    [
        ("look", '{"id": 1}', ToolChoice("required"), True),
        ("look", '{"id": "x"}', ToolChoice("required"), False),
        ("look", '{"id": ', ToolChoice("named", "look"), False),
        ("look", '{"id": "x"}', ToolChoice(), True),
        ("other", "{}", ToolChoice(), False),
    ],
)
def test_tool_arguments_are_held_to_their_schema_where_they_are_forced(
    name: str, arguments: str, choice: ToolChoice, ok: bool
) -> None:
    tool = Tool("look", "", {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]})
    call: list[Event] = [Start(1), ToolDelta(0, "c1", name, arguments), End(("tool_calls",), Usage(1, 1))]
    gateway = Gateway([route(Scripted(call), retry=Retry(attempts=1))])
    answer = run(plain(gateway, ask(tools=(tool,), choice=choice)))
    assert isinstance(answer, Answer) == ok


def test_guards_see_requests_first_and_answers_last() -> None:
    class NoSecrets:
        name = "no secrets"

        def check(self, request: Generation) -> Generation | Refusal:
            text = request.messages[-1].text
            if "password" in text:
                return Refusal(self.name, "it asks for a password")
            return msgspec.structs.replace(request, messages=(Message("user", (text.replace("Bob", "[name]"),)),))

    engine = Scripted(says("call 55", "5-12", "34 now"))
    guard = Patterns("phones", r"\d{3}-\d{4}", 8, "[phone]")
    gateway = Gateway([route(engine, input_guards=(NoSecrets(),), output_guards=(guard,))])
    assert text_of(run(streamed(gateway, ask("I am Bob")))) == "call [phone] now"
    assert engine.requests[0].messages[0].text == "I am [name]"
    refused = run(plain(gateway, ask("the password?")))
    assert isinstance(refused, Refused)
    assert "no secrets: it asks for a password" in refused.error.message
    assert len(engine.requests) == 1


def test_a_pattern_is_kept_from_the_model_wherever_people_or_tools_bring_it() -> None:
    engine = Scripted(says("done"))
    cards = AskedPatterns("cards", r"\b\d{16}\b", r"[card \1]")
    gateway = Gateway([route(engine, input_guards=(cards,))])
    card = "4111111111111111"
    turns = (
        Message("system", (card,)),
        Message("user", ("pay", card)),
        Message("tool", (f"paid {card}",), answers="c"),
    )
    run(plain(gateway, Generation("id", "chat", turns)))
    assert [turn.content for turn in engine.requests[0].messages] == [
        (card,), ("pay", r"[card \1]"), (r"paid [card \1]",),
    ]  # fmt: skip
    strict = Gateway([route(engine, input_guards=(AskedPatterns("cards", r"\b\d{16}\b"),))])
    refused = run(plain(strict, Generation("id", "chat", prompt=f"pay {card}")))
    assert isinstance(refused, Refused)
    assert refused.error.message == "refused by cards: it holds what must not be asked"
    assert len(engine.requests) == 1


def test_trap_8_an_answer_ends_before_its_stop_text_and_the_engine_is_told_to_stop() -> None:
    engine = Scripted([Start(1), Text("one #", 1), Text("#", 1), Text("# two", 1), 30.0, End(("stop",), None)])
    events = run(streamed(Gateway([route(engine)]), ask(sampling=Sampling(stop=("###",)))))
    assert text_of(events) == "one "
    end = events[-1]
    assert isinstance(end, End)
    assert (end.reasons, end.stopped_by) == (("stop",), ("###",))
    assert len(engine.gone) == 1


# -- usage, cost, cache ------------------------------------------------------------------------------------------------


def test_trap_5_usage_is_counted_where_the_engine_is_silent_and_settled_once() -> None:
    key = Key(id="k", digest=digest_of("k"), limits=Limits(tokens=100_000))
    kept = Kept()
    cases: list[tuple[list[Event], Usage]] = [
        (says("a", "b"), Usage(5, 2)),
        ([Start(None), Text("one two"), Text(" three"), End(("stop",))], Usage(2, 3, source="counted")),
        ([Start(7, 3), Text("x", 4), End(("stop",))], Usage(7, 4, cached=3, source="counted")),
        ([Start(7), Reasoning("hm", 2), Text("x", 1), End(("stop",))], Usage(7, 3, reasoning=1, source="counted")),
    ]
    for events, usage in cases:
        gateway = Gateway([route(Scripted(events))], keys=[key], recorder=kept)
        found = run(streamed(gateway, caller=Caller(key)))
        assert isinstance(found[-1], End)
        assert found[-1].usage == usage
        account = gateway.account("key:k")
        assert account is not None
        assert account.used_tokens == usage.prompt + usage.completion
        assert kept.records[-1].usage == usage


def test_cost_is_recorded_with_the_version_of_its_price() -> None:
    kept = Kept()
    prices = [
        Price(provider="p", model="inner", version="old", input=1, output=1),
        Price(provider="p", model="inner", version="new", valid_from_ns=10, input=3_000_000, output=5_000_000),
    ]
    gateway = Gateway([route(Scripted(says("a", "b")))], prices=PriceTable(prices), recorder=kept, clock_ns=lambda: 20)
    run(streamed(gateway))
    assert (kept.records[0].cost_micro, kept.records[0].price_version) == (5 * 3 + 2 * 5, "new")


def test_trap_12_an_equal_request_is_answered_from_the_cache_event_by_event() -> None:
    engine = Scripted(says("a", "b"))
    kept = Kept()
    gateway = Gateway([route(engine, cache_s=60)], recorder=kept)
    greedy = ask(sampling=Sampling(temperature=0))
    first, again = run(streamed(gateway, greedy)), run(streamed(gateway, greedy))
    assert first == again
    assert len(engine.requests) == 1
    assert [record.cache for record in kept.records] == ["", "exact"]
    assert kept.records[1].cost_micro == 0
    run(streamed(gateway, greedy, Caller(tenant="other")))
    run(streamed(gateway, ask(sampling=Sampling(temperature=0.5))))
    run(streamed(gateway, ask(sampling=Sampling(temperature=0.5))))
    assert len(engine.requests) == 4


def test_an_answer_from_the_cache_is_a_request_of_no_tokens_and_no_money() -> None:
    key = Key(id="k", digest=digest_of("k"), limits=Limits(requests=3, tokens=600, concurrent=1, money_micro=10**6))
    price = Price(provider="p", model="inner", version="1", input=10, output=10)
    engine = Scripted(says("a", "b"))
    gateway = Gateway([route(engine, cache_s=60)], keys=[key], prices=PriceTable([price]), clock_ns=lambda: 20)
    greedy = ask(sampling=Sampling(temperature=0, max_tokens=50))
    account = gateway.account("key:k")
    assert account is not None

    async def asked() -> Run | Refused:
        opened = await gateway.open(Call(greedy, Caller(key)))
        if isinstance(opened, Run):
            assert account.under_way == 1
            assert opened.left() is not None
            await opened.complete()
            await opened.close()
        return opened

    run(asked())
    used = account.tokens, account.money
    assert used[0] > 0
    run(asked())
    assert (account.requests, account.under_way, account.tokens, account.money) == (2, 0, *used)
    account.tokens, account.money = 600, 10**6  # whoever has none left still gets what is there
    assert isinstance(run(asked()), Run)
    refusal = run(asked())
    assert isinstance(refusal, Refused)
    assert (refusal.error.kind, len(engine.requests)) == ("rate", 1)


def test_trap_12_a_stream_that_its_client_left_is_not_kept() -> None:
    engine = Scripted(says("a", "b"))
    gateway = Gateway([route(engine, cache_s=60)])
    greedy = ask(sampling=Sampling(temperature=0))

    async def leave() -> None:
        opened = await gateway.open(Call(greedy))
        assert isinstance(opened, Run)
        async for event in opened.events():
            if isinstance(event, Text):
                break
        await opened.close()

    run(leave())
    run(streamed(gateway, greedy))
    assert len(engine.requests) == 2


def test_trap_3_in_process_callers_open_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        gateway = Gateway([route(Scripted(says("x")))])
        monkeypatch.setattr(socket, "socket", None)
        monkeypatch.setattr(asyncio, "open_connection", None)
        assert text_of(await streamed(gateway)) == "x"
        monkeypatch.undo()

    run(scenario())


def test_a_record_says_what_happened() -> None:
    kept = Kept()
    key = Key(id="web", digest=digest_of("k"), tenant="acme")
    bad = Scripted([BUSY])
    other = msgspec.structs.replace(targets(Scripted(says("x"))), name="other")
    gateway = Gateway([targets(bad, fallback=("other",), retry=Retry(attempts=1)), other], keys=[key], recorder=kept)
    run(streamed(gateway, caller=Caller(key, "acme", "user1")))
    record = kept.records[0]
    assert (record.status, record.attempt, record.lane, record.finish_reason) == ("ok", 2, "chat", "stop")
    assert record.ttft_us > 0
    assert record.total_us >= record.ttft_us
    engine = Scripted([Error("invalid", "no")])
    run(streamed(Gateway([route(engine)], recorder=kept)))
    assert (kept.records[1].status, kept.records[1].error_kind) == ("error", "invalid")
