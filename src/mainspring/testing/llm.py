"""The contract of LLM engines: derive from `EngineContract` and give it your adapter, opened.

An engine belongs to one event loop: `OnLoop` holds a started engine together with its loop, so that plain tests may
ask it things.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import orjson

from mainspring.lazy import lazy
from mainspring.ports.llm import (
    Embeddings,
    EmbedRequest,
    End,
    Engine,
    Error,
    Event,
    Failed,
    Generation,
    Image,
    Message,
    Ready,
    Reason,
    Reasoning,
    Sampling,
    Schema,
    Start,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolDelta,
)

if TYPE_CHECKING:
    import pytest
else:
    pytest = lazy("pytest")

__all__ = ["EngineContract", "OnLoop", "calls_of", "chat", "text_of"]

T = TypeVar("T")
GREEDY = Sampling(temperature=0.0, seed=7, max_tokens=24)
WEATHER = Tool(
    "weather",
    "The weather of a city.",
    {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer", "minimum": 1}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
)
CLOCK = Tool("clock", "What time it is.", {"type": "object", "properties": {}, "additionalProperties": False})


class OnLoop:
    """A started engine with the event loop that it lives on; ``with`` starts and drains it.

    Args:
        opening: makes the engine; called on the loop.
    """

    def __init__(self, opening: Callable[[], Engine]) -> None:
        self._runner = asyncio.Runner()
        self._opening = opening
        self.ready: Ready | Failed = Failed("not started")

    def __enter__(self) -> OnLoop:
        async def start() -> None:
            self.engine = self._opening()
            self.ready = await self.engine.start()

        self.run(start())
        assert isinstance(self.ready, Ready), self.ready
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.run(self.engine.drain(0.0))
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it on the loop, within two minutes."""

        async def within() -> T:
            async with asyncio.timeout(120):
                return await work

        return self._runner.run(within())

    def events(self, request: Generation) -> list[Event]:
        """All events of a request."""
        return self.run(all_of(self.engine.generate(request)))


async def all_of(stream: AsyncIterator[Event]) -> list[Event]:
    """All events."""
    return [event async for event in stream]


def chat(text: str, *, id: str = "r", sampling: Sampling = GREEDY, **more: Any) -> Generation:
    """A conversation of one turn, for the engine's only model."""
    return Generation(id, "", messages=(Message("user", (text,)),), sampling=sampling, **more)


def text_of(events: list[Event], choice: int = 0) -> str:
    """The text of a choice."""
    return "".join(event.text for event in events if isinstance(event, Text) and event.choice == choice)


def calls_of(events: list[Event]) -> dict[int, tuple[str, str, str]]:
    """Id, name and arguments of each tool call, by index."""
    found: dict[int, tuple[str, str, str]] = {}
    for event in events:
        if isinstance(event, ToolDelta):
            id, name, arguments = found.get(event.index, ("", "", ""))
            found[event.index] = (id or event.id, name or event.name, arguments + event.arguments)
    return found


def ended(events: list[Event]) -> End:
    """The `End` of events that have kept the order."""
    assert isinstance(events[0], Start), events[0]
    assert isinstance(events[-1], End), events[-1]
    assert not [event for event in events[1:-1] if isinstance(event, (Start, End, Error))]
    return events[-1]


def refused(events: list[Event]) -> Error:
    """The `Error` of a request that was never accepted."""
    assert len(events) == 1, events
    assert isinstance(events[0], Error)
    return events[0]


class EngineContract:
    """What every engine does.

    A subclass defines the fixtures ``llm``, an `OnLoop` that its tests share, and ``another``, a function that opens
    a further one, entered already, which the test may drain. What an engine says that it cannot do must be refused.

    Attributes:
        question: of which the answer at temperature 0 is longer than 24 tokens.
        refuses_keywords: whether it says of a schema's keyword that it cannot enforce it; an upstream may not.
        long: a prompt of more tokens than its context, or empty when that is not known.
        exact: whether it counts tokens exactly and gives the same text for the same seed.
    """

    question = "Tell me a long story about a dog and a cat."
    refuses_keywords = True
    long = "word " * 20_000
    exact = True

    # -- the order of events ------------------------------------------------------------------------------------------

    def test_it_is_the_port(self, llm: OnLoop) -> None:
        """It has every method, and was ready with a token."""
        assert isinstance(llm.engine, Engine)
        assert isinstance(llm.ready, Ready)
        assert llm.ready.seconds >= 0

    def test_start_comes_first_and_end_last_and_once(self, llm: OnLoop) -> None:
        """Between them are pieces of the answer, each with something in it."""
        events = llm.events(chat(self.question))
        end = ended(events)
        assert end.reasons == ("length",)
        assert text_of(events)
        assert all(event.text for event in events if isinstance(event, (Text, Reasoning)))

    def test_usage_is_what_came(self, llm: OnLoop) -> None:
        """Prompt as counted beforehand, completion as many as were allowed; cached is part of the prompt."""
        request = chat(self.question, sampling=msgspec.structs.replace(GREEDY, max_tokens=5))
        events = llm.events(request)
        usage = ended(events).usage
        assert usage is not None
        assert 0 < usage.completion <= 5
        assert 0 <= usage.cached <= usage.prompt
        count = llm.run(llm.engine.count(request))
        if self.exact:
            assert usage.completion == 5
            assert count == usage.prompt
        start = events[0]
        assert isinstance(start, Start)
        assert start.prompt_tokens in (None, usage.prompt)

    def test_text_is_whole_characters(self, llm: OnLoop) -> None:
        """Signs that are many tokens come whole: no piece holds half of one."""
        wanted = "héllo 🙂🏳️‍🌈 日本語 ﷽"
        if not llm.engine.capabilities().grammar:
            pytest.skip("it cannot be made to say a certain text")
        request = chat("Say it.", sampling=msgspec.structs.replace(GREEDY, max_tokens=120))
        events = llm.events(msgspec.structs.replace(request, schema=Schema({"const": wanted}, "said")))
        ended(events)
        assert orjson.loads(text_of(events)) == wanted
        for event in events:
            if isinstance(event, Text):
                assert "\ufffd" not in event.text
                event.text.encode("utf-8")

    def test_streams_do_not_mix(self, llm: OnLoop) -> None:
        """Several at once each have their own order and their own end."""

        async def many() -> list[list[Event]]:
            asked = [chat(f"{self.question} {number}", id=f"m{number}") for number in range(4)]
            return await asyncio.gather(*(all_of(llm.engine.generate(request)) for request in asked))

        for events in llm.run(many()):
            assert ended(events).reasons == ("length",)
            assert text_of(events)

    # -- how it is drawn ----------------------------------------------------------------------------------------------

    def test_the_same_seed_says_the_same(self, llm: OnLoop) -> None:
        """As far as it claims to."""
        if not (llm.engine.capabilities().seeds and self.exact):
            pytest.skip("it does not claim so")
        sampling = Sampling(temperature=1.0, seed=11, max_tokens=12)
        llm.events(chat(self.question, sampling=sampling))  # so that both find the same in the prompt's cache
        said = {text_of(llm.events(chat(self.question, sampling=sampling))) for _ in range(2)}
        assert len(said) == 1

    def test_a_stop_text_over_the_edge_of_pieces(self, llm: OnLoop) -> None:
        """Nothing of it is told, and it is named where the engine knows."""
        llm.events(chat(self.question))
        events = llm.events(chat(self.question))
        pieces = [event.text for event in events if isinstance(event, Text)]
        whole = "".join(pieces)
        edge = len("".join(pieces[: len(pieces) // 2]))
        stop = whole[edge - 2 : edge + 2]
        sampling = msgspec.structs.replace(GREEDY, stop=("@never@", stop))
        stopped = llm.events(chat(self.question, sampling=sampling))
        end = ended(stopped)
        assert end.reasons == ("stop",)
        assert stop not in text_of(stopped)
        assert end.stopped_by in ((), ("",), (stop,))
        if self.exact:
            assert text_of(stopped) == whole[: whole.index(stop)]

    def test_several_choices(self, llm: OnLoop) -> None:
        """Each has its text and its reason; the usage is that of all."""
        sampling = Sampling(temperature=1.0, seed=3, max_tokens=6, n=2)
        events = llm.events(chat(self.question, sampling=sampling))
        if not llm.engine.capabilities().choices:
            assert refused(events).kind == "invalid"
            return
        end = ended(events)
        assert end.reasons == ("length", "length")
        assert text_of(events, 0)
        assert text_of(events, 1)
        if self.exact:
            assert end.usage is not None
            assert end.usage.completion > 6

    def test_log_probabilities(self, llm: OnLoop) -> None:
        """Of each token, with the likeliest alternatives in order; together the tokens are the text."""
        if not llm.engine.capabilities().logprobs:
            pytest.skip("it tells none")
        events = llm.events(chat("Say hello.", sampling=msgspec.structs.replace(GREEDY, logprobs=3, max_tokens=6)))
        ended(events)
        told = [one for event in events if isinstance(event, Text) for one in event.logprobs]
        assert "".join(one.token for one in told) == text_of(events)
        for one in told:
            assert one.logprob <= 0
            assert len(one.top) == 3
            assert [top.logprob for top in one.top] == sorted((top.logprob for top in one.top), reverse=True)
            assert one.top[0].token == one.token

    # -- bare prompts -------------------------------------------------------------------------------------------------

    def test_a_bare_prompt(self, llm: OnLoop) -> None:
        """Is continued, as text and as its tokens."""
        sampling = msgspec.structs.replace(GREEDY, max_tokens=3)
        request = Generation("p", "", prompt="The capital of France is", sampling=sampling)
        events = llm.events(request)
        if not llm.engine.capabilities().completion:
            assert refused(events).kind == "invalid"
            return
        assert ended(events).usage is not None
        assert text_of(events)
        tokens = llm.run(llm.engine.tokenize("The capital of France is"))
        if tokens is not None:
            again = llm.events(msgspec.structs.replace(request, prompt=tuple(tokens)))
            ended(again)

    # -- tools and schemas --------------------------------------------------------------------------------------------

    def test_a_named_tool_is_called(self, llm: OnLoop) -> None:
        """With arguments that its schema allows; id and name come with the first piece."""
        request = chat("What is the weather in Rome?", sampling=msgspec.structs.replace(GREEDY, max_tokens=80))
        request = msgspec.structs.replace(
            request, tools=(CLOCK, WEATHER), choice=ToolChoice("named", "weather", parallel=False)
        )
        events = llm.events(request)
        assert ended(events).reasons == ("tool_calls",)
        calls = calls_of(events)
        assert list(calls) == [0]
        id, name, arguments = calls[0]
        assert id
        assert name == "weather"
        given = orjson.loads(arguments)
        assert isinstance(given["city"], str)
        assert given["days"] >= 1
        first = next(event for event in events if isinstance(event, ToolDelta))
        assert (first.id, first.name) == (id, name)

    def test_some_tool_is_required(self, llm: OnLoop) -> None:
        """One of them is called."""
        request = chat("Hello!", sampling=msgspec.structs.replace(GREEDY, max_tokens=80))
        events = llm.events(msgspec.structs.replace(request, tools=(WEATHER, CLOCK), choice=ToolChoice("required")))
        assert ended(events).reasons == ("tool_calls",)
        assert {name for _, name, _ in calls_of(events).values()} <= {"weather", "clock"}

    def test_no_tool_is_called_when_none_may_be(self, llm: OnLoop) -> None:
        """It answers with text."""
        request = msgspec.structs.replace(chat("Hello!"), tools=(WEATHER,), choice=ToolChoice("none"))
        events = llm.events(request)
        assert not calls_of(events)
        assert text_of(events)

    def test_what_a_tool_answered_is_part_of_the_conversation(self, llm: OnLoop) -> None:
        """A turn that called, the tool's answer, and the next turn are taken."""
        asked = llm.events(
            msgspec.structs.replace(
                chat("The weather?", sampling=msgspec.structs.replace(GREEDY, max_tokens=80)),
                tools=(WEATHER,),
                choice=ToolChoice("named", "weather"),
            )
        )
        id, name, arguments = calls_of(asked)[0]
        request = chat("Weather?")
        called = Message("assistant", (), calls=(ToolCall(id, name, arguments),))
        told = Message("tool", ("Sunny, 25 degrees",), answers=id)
        request = msgspec.structs.replace(request, messages=(*request.messages, called, told), tools=(WEATHER,))
        events = llm.events(request)
        ended(events)

    def test_an_answer_that_must_fit_a_schema(self, llm: OnLoop) -> None:
        """Fits it, whatever was asked, without white space that no one needs."""
        if not llm.engine.capabilities().grammar:
            pytest.skip("it cannot force one")
        schema = {
            "type": "object",
            "properties": {"mood": {"enum": ["good", "bad"]}, "score": {"type": "integer", "minimum": 0, "maximum": 9}},
            "required": ["mood", "score"],
            "additionalProperties": False,
        }
        sampling = msgspec.structs.replace(GREEDY, max_tokens=60)
        events = llm.events(msgspec.structs.replace(chat("Hello", sampling=sampling), schema=Schema(schema, "mood")))
        assert ended(events).reasons == ("stop",)
        found = orjson.loads(text_of(events))
        assert found["mood"] in ("good", "bad")
        assert 0 <= found["score"] <= 9
        if self.refuses_keywords:
            assert text_of(events).count("\n") == 0
        anything = llm.events(msgspec.structs.replace(chat("Hi", sampling=sampling), schema=Schema()))
        if ended(anything).reasons == ("stop",):
            assert isinstance(orjson.loads(text_of(anything)), dict)

    def test_a_schema_that_is_cut_is_said_to_be(self, llm: OnLoop) -> None:
        """Its reason is length, so that nobody takes it for JSON."""
        if not llm.engine.capabilities().grammar:
            pytest.skip("it cannot force one")
        schema = {"type": "object", "properties": {"a": {"type": "string", "minLength": 400}}, "required": ["a"]}
        sampling = msgspec.structs.replace(GREEDY, max_tokens=5)
        events = llm.events(msgspec.structs.replace(chat("Hello", sampling=sampling), schema=Schema(schema)))
        assert ended(events).reasons == ("length",)

    @pytest.mark.parametrize(
        "schema",
        [
            {"type": "object", "not": {"required": ["x"]}},
            {"if": {"type": "string"}, "then": {"minLength": 3}},
            {"type": "what"},
            {"type": "object", "properties": {"deep": {"type": "array", "items": {"not": {}}}}},
        ],
    )
    def test_a_schema_that_cannot_be_enforced_is_refused(self, llm: OnLoop, schema: dict[str, object]) -> None:
        """Before anything is generated."""
        if not self.refuses_keywords:
            pytest.skip("that is the upstream's business")
        error = refused(llm.events(msgspec.structs.replace(chat("Hi"), schema=Schema(schema))))
        assert error.kind == "invalid"

    # -- what is refused ----------------------------------------------------------------------------------------------

    def test_a_prompt_that_is_too_long(self, llm: OnLoop) -> None:
        """Is refused with both numbers, before anything is generated."""
        if not self.long:
            pytest.skip("only its upstream knows the context")
        request = chat(self.long)
        error = refused(llm.events(request))
        assert error.kind == "context_length"
        assert not error.retryable
        assert str(llm.engine.capabilities().context) in error.message
        if self.exact:
            assert str(llm.run(llm.engine.count(request))) in error.message

    def test_what_cannot_be_asked(self, llm: OnLoop) -> None:
        """Another model, numbers out of range, nothing at all: each its kind, none retryable."""
        cases: list[tuple[Generation, str]] = [
            (msgspec.structs.replace(chat("Hi"), model="nobody-has-this"), "not_found"),
            (chat("Hi", sampling=Sampling(temperature=-1.0)), "invalid"),
            (chat("Hi", sampling=Sampling(top_p=1.5)), "invalid"),
            (chat("Hi", sampling=Sampling(max_tokens=0)), "invalid"),
            (chat("Hi", sampling=Sampling(n=0)), "invalid"),
            (chat("Hi", sampling=Sampling(stop=("",))), "invalid"),
            (Generation("e", "", messages=()), "invalid"),
            (Generation("e", "", prompt=""), "invalid"),
            (msgspec.structs.replace(chat("Hi"), choice=ToolChoice("required")), "invalid"),
            (msgspec.structs.replace(chat("Hi"), tools=(CLOCK,), choice=ToolChoice("named", "no")), "invalid"),
        ]
        if not llm.engine.capabilities().images:
            picture = Message("user", (Image(b"\x89PNG", "image/png"),))
            cases.append((Generation("e", "", messages=(picture,)), "invalid"))
        for request, kind in cases:
            error = refused(llm.events(request))
            assert (error.kind, error.retryable) == (kind, False), request

    # -- embeddings and counts ----------------------------------------------------------------------------------------

    def test_embedding(self, llm: OnLoop) -> None:
        """A vector for each text in order, alike for like texts; or a refusal."""
        request = EmbedRequest("v", "", ("A cat sat.", "Taxes rise in May.", "A cat sat."))
        found = llm.run(llm.engine.embed(request))
        if not llm.engine.capabilities().embeddings:
            assert isinstance(found, Error)
            assert found.kind == "invalid"
            return
        assert isinstance(found, Embeddings)
        assert {len(vector) for vector in found.vectors} == {4 * found.dims}
        a, b, c = (array("f", vector) for vector in found.vectors)
        assert sum(x * x for x in a) > 0
        assert _cosine(a, c) > 0.99
        assert _cosine(a, c) > _cosine(a, b)
        assert found.usage.prompt > 0
        assert found.usage.completion == 0

    def test_counting(self, llm: OnLoop) -> None:
        """More text and more tools are more tokens; who cannot count conversations never does."""
        small, large = chat("Hi"), chat("Hi, and then a good deal more than that")
        counted = [
            llm.run(llm.engine.count(request))
            for request in (small, large, msgspec.structs.replace(small, tools=(WEATHER,)))
        ]
        if None in counted:
            assert counted == [None] * 3
            return
        assert 0 < counted[0] < counted[1]  # type: ignore[operator]
        assert counted[2] > counted[0]  # type: ignore[operator]

    def test_health_is_a_token(self, llm: OnLoop) -> None:
        """Within its deadline, and it says how long that took."""
        found = llm.run(llm.engine.health(60.0))
        assert found.ok, found.why
        assert found.took_us > 0

    # -- stopping -----------------------------------------------------------------------------------------------------

    def test_cancelling(self, llm: OnLoop) -> None:
        """Ends the stream with its reason; twice, afterwards and of nobody it does nothing; others go on."""
        sampling = msgspec.structs.replace(GREEDY, max_tokens=400)

        async def cut() -> tuple[list[Event], list[Event], int]:
            other = asyncio.ensure_future(all_of(llm.engine.generate(chat("Say hello.", id="other"))))
            events: list[Event] = []
            after = 0
            async for event in llm.engine.generate(chat(self.question, id="cut", sampling=sampling)):
                events.append(event)
                after += isinstance(event, Text) and len(events) > 3
                if isinstance(event, Text) and after <= 1:
                    await llm.engine.cancel("cut")
                    await llm.engine.cancel("cut")
                    await llm.engine.cancel("nobody")
            await llm.engine.cancel("cut")
            return events, await other, after

        events, other, _ = llm.run(cut())
        assert ended(events).reasons == ("cancelled",)
        assert len([event for event in events if isinstance(event, Text)]) < 40
        assert ended(other).reasons in (("length",), ("stop",))

    def test_cancelling_before_the_first_token(self, llm: OnLoop) -> None:
        """The stream still has a start and an end."""

        async def cut() -> list[Event]:
            reading = asyncio.ensure_future(all_of(llm.engine.generate(chat(self.question, id="early"))))
            await asyncio.sleep(0)
            await llm.engine.cancel("early")
            return await reading

        assert ended(llm.run(cut())).reasons in (("cancelled",), ("length",))

    def test_a_reader_that_leaves(self, llm: OnLoop) -> None:
        """Cancels: the engine has nothing under way, and answers the next."""
        sampling = msgspec.structs.replace(GREEDY, max_tokens=400)

        async def leave() -> None:
            stream = llm.engine.generate(chat(self.question, id="left", sampling=sampling))
            async for event in stream:
                if isinstance(event, Text):
                    break
            await stream.aclose()  # type: ignore[attr-defined]

        llm.run(leave())
        assert ended(llm.events(chat("Say hello."))).reasons

    def test_draining(self, another: Callable[[], OnLoop]) -> None:
        """What runs may end; nothing new is taken, and health says so."""
        llm = another()
        sampling = msgspec.structs.replace(GREEDY, max_tokens=8)

        async def drain() -> list[Event]:
            stream = llm.engine.generate(chat(self.question, sampling=sampling))
            events = [await anext(stream)]
            draining = asyncio.ensure_future(llm.engine.drain(60.0))
            await asyncio.sleep(0)
            events += await all_of(llm.engine.generate(chat("late", id="late")))
            events += await all_of(stream)
            await draining
            return events

        start, late, *rest = llm.run(drain())
        assert isinstance(late, Error)
        assert late.kind == "overloaded"
        reasons: tuple[Reason, ...] = ended([start, *rest]).reasons
        assert reasons in (("length",), ("stop",))
        assert not llm.run(llm.engine.health(5.0)).ok

    def test_draining_has_a_deadline(self, another: Callable[[], OnLoop]) -> None:
        """What has not ended then is cancelled."""
        llm = another()
        sampling = msgspec.structs.replace(GREEDY, max_tokens=400)

        async def drain() -> list[Event]:
            stream = llm.engine.generate(chat(self.question, sampling=sampling))
            events = [await anext(stream)]
            draining = asyncio.ensure_future(llm.engine.drain(0.0))
            events += await all_of(stream)
            await draining
            return events

        assert ended(llm.run(drain())).reasons == ("cancelled",)


def _cosine(a: array[float], b: array[float]) -> float:
    norm: float = (sum(x * x for x in a) * sum(x * x for x in b)) ** 0.5
    return float(sum(x * y for x, y in zip(a, b, strict=True)) / norm)
