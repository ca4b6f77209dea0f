"""The scripted engine, against the one contract and its script."""

import asyncio

import pytest

from mainspring.adapters.fake import ADAPTER
from mainspring.adapters.fake.engine import open_engine
from mainspring.adapters.fake.health import health
from mainspring.adapters.fake.settings import FakeSettings
from mainspring.choose.services import Services
from mainspring.errors import ConfigError
from mainspring.ports.llm import End, Error, Generation, Message, Reasoning, Sampling, Start, Text, Usage
from mainspring.testing.engine import Answer, Call, FakeEngine
from mainspring.testing.llm import EngineContract, OnLoop, all_of, calls_of, chat, text_of

STORY = " ".join(f"word{number}" for number in range(500))


class TestFake(EngineContract):
    refuses_keywords = False

    @pytest.fixture
    def another(self):
        entered = []

        def open_one():
            entered.append(OnLoop(lambda: FakeEngine([Answer(text=STORY)])))
            return entered[-1].__enter__()

        yield open_one
        for one in entered:
            one.__exit__(None, None, None)

    @pytest.fixture
    def llm(self, another):
        return another()


def answered(engine, *requests):
    async def ask():
        return [await all_of(engine.generate(request)) for request in requests]

    return asyncio.run(ask())


def test_the_first_answer_that_fits():
    engine = FakeEngine(
        [
            Answer(when="once", text="only once", times=1),
            Answer(when=r"order (\d+)", text=r"Order \1 is on its way.", reasoning="Let me see."),
            Answer(when="tool", calls=(Call("weather", {"city": "Rome"}), Call("clock", "{broken"))),
        ]
    )
    asked = [chat("once"), chat("once"), chat("where is order 17?"), chat("a tool please"), chat("echo")]
    first, second, order, tool, echo = answered(engine, *asked)
    assert (text_of(first), text_of(second)) == ("only once", "once")
    assert text_of(order) == "Order 17 is on its way."
    assert "".join(event.text for event in order if isinstance(event, Reasoning)) == "Let me see."
    assert order[-1].usage == Usage(8, 11, 0, 0, 4)
    assert [call[1:] for call in calls_of(tool).values()] == [("weather", '{"city":"Rome"}'), ("clock", "{broken")]
    assert tool[-1].reasons == ("tool_calls",)
    assert text_of(echo) == "echo"
    assert engine.requests == asked
    assert engine.tokens == sum(one[-1].usage.completion for one in (first, second, order, echo)) + sum(
        not isinstance(event, (Start, End)) for event in tool
    )


def test_faults():
    engine = FakeEngine(
        [
            Answer(when="busy", error="rate", after=-1, retryable=True, retry_after=2.0),
            Answer(when="half", text="one two three", error="upstream", after=2),
            Answer(when="silent", text="x", silent=True),
            Answer(when="pieces", pieces=("<too", "l_call>", "x"), cached=3),
        ]
    )
    busy, half, silent, pieces = answered(engine, *map(chat, ("busy", "half", "silent", "pieces")))
    assert busy == [Error("rate", "the script says so: rate", True, 2.0)]
    assert [type(event) for event in half] == [Start, Text, Text, Error]
    assert silent[-1].usage is None
    assert [event.text for event in pieces[1:-1]] == ["<too", "l_call>", "x"]
    assert (pieces[0].cached, pieces[-1].usage.cached) == (3, 3)


def test_holding_and_cancelling_are_seen():
    engine = FakeEngine([Answer(text="one two three four", hold=2)])

    async def play():
        held, cut = (asyncio.ensure_future(all_of(engine.generate(chat("x", id=name)))) for name in ("held", "cut"))
        while len(engine._held) < 2:
            await asyncio.sleep(0)
        assert engine.under_way == 2
        await engine.cancel("cut")
        cut = await cut
        assert engine.under_way == 1
        engine.release()
        return await held, cut

    held, cut = asyncio.run(play())
    assert (text_of(held), held[-1].reasons) == ("one two three four", ("stop",))
    assert (text_of(cut), cut[-1].reasons) == ("one two", ("cancelled",))
    assert engine.cancelled == ["cut"]


def test_delay_and_pace_end_with_a_cancel():
    engine = FakeEngine([Answer(when="delay", delay=1000.0), Answer(text="a b c", pace=1000.0)])

    async def play(text):
        reading = asyncio.ensure_future(all_of(engine.generate(chat(text))))
        await asyncio.sleep(0.01)
        await engine.cancel("r")
        return await reading

    for text in ("delay", "pace"):
        assert asyncio.run(play(text))[-1].reasons == ("cancelled",)


def test_too_many_at_once():
    engine = FakeEngine([Answer(text="x", hold=0)], most=1)

    async def play():
        first = engine.generate(chat("x"))
        await anext(first)
        second = await all_of(engine.generate(chat("x")))
        await first.aclose()
        return second

    (refused,) = asyncio.run(play())
    assert (refused.kind, refused.retryable) == ("overloaded", True)
    assert engine.under_way == 0
    assert engine.cancelled == ["r"]


def test_a_function_may_answer():
    engine = FakeEngine(lambda request: Answer(text=f"{len(request.messages)} turns"))
    request = Generation("r", "", messages=(Message("system", ("s",)), Message("user", ("u",))))
    assert text_of(answered(engine, request)[0]) == "2 turns"


def test_a_profile_chooses_it_with_a_script(tmp_path):
    (tmp_path / "mainspring.toml").write_text(
        'app = "a:app"\n[llms.chat]\nadapter = "fake"\nscript = "answers.json"\nmodel = "mini"\n', "utf-8"
    )
    (tmp_path / "answers.json").write_text('[{"when": "hi", "text": "Hello!"}]', "utf-8")
    engine = Services.of_project(tmp_path).engine("chat")
    assert text_of(answered(engine, chat("hi there", sampling=Sampling()))[0]) == "Hello!"
    assert health(engine) == {"answers": True, "models": ["mini"]}
    assert (ADAPTER.embedded, ADAPTER.schemes) == (False, ())


@pytest.mark.parametrize("text", ["{", '[{"when": 1}]', None])
def test_a_script_that_cannot_be_read(tmp_path, text):
    if text is not None:
        (tmp_path / "s.json").write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        open_engine(FakeSettings(script="s.json"), tmp_path / ".mainspring")
    assert caught.value.code == "MS-3073"
