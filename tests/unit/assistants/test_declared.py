"""Declared tools, endpoints and feature views as what an agent runs."""

import asyncio
from datetime import datetime
from types import SimpleNamespace
from typing import ClassVar

import msgspec
import pytest

from assistants_kit import ADA, BOB, assistant, of_type, told
from mainspring import App, Entity, Identity, Record, count
from mainspring.assistants.declared import settings_of, tool_threads, usables_of
from mainspring.assistants.events import ToolResult
from mainspring.assistants.usable import Usable, of_endpoint, of_features, of_tool, result_text
from mainspring.declare.record import ColumnType, Kind
from mainspring.errors import ConfigError, DataError
from mainspring.testing import Call


class Flight(Record):
    flight_id: str
    origin: str
    departed: datetime


app = App("support")
chat = app.llm("chat", max_tokens=200, temperature=0)
route = chat.route(called="public")
flights = app.source(Flight, time="departed")
congestion = app.features(flights, entity=Entity("origin"), called="congestion", flights_1h=count("1h"))


@app.tool(timeout="2s", approve=True, allow=["group:staff"], retries=2)
def refund(order_id: int, caller: Identity, cents: int = 0) -> dict[str, object]:
    """Refund an order.

    Args:
        order_id: which.
        cents: how much; all when left out.
    """
    return {"order": order_id, "cents": cents, "by": caller.user}


@app.tool
async def status(order_id: int) -> str:
    """Where an order is now."""
    await asyncio.sleep(0)
    return f"order {order_id} is on its way"


prompt = app.prompt("Be kind to {{ who }}.", variables={"who": "everybody"}, called="kind")
other = app.assistant("other", chat, may=[congestion])
desk = app.assistant("desk", route, may=[refund, status], instructions=prompt, k=3, max_calls=4, timeout="5s")


@pytest.fixture
def threads():
    with tool_threads() as found:
        yield found


def test_the_settings_of_a_declaration():
    settings = settings_of(desk, lambda given: "Be kind." if given is prompt else "?")
    assert (settings.name, settings.model, settings.instructions) == ("desk", "public", "Be kind.")
    assert (settings.k, settings.max_calls, settings.timeout, settings.always) == (3, 4, 5.0, True)
    assert (settings.max_tokens, settings.temperature, settings.keep_us) == (200, 0, 30 * 86_400_000_000)


def test_the_tools_of_a_declaration(threads):
    first, second = usables_of(desk, threads, {})
    assert (first.name, first.description, first.timeout) == ("refund", "Refund an order.", 2.0)
    assert (first.approve, first.allow, first.retries) == (True, ("group:staff",), 2)
    assert "caller" not in first.schema["properties"]
    assert (first.allowed(ADA), first.allowed(BOB), second.allowed(BOB)) == (True, False, True)
    assert asyncio.run(first.call(b'{"order_id": 3}', ADA)) == {"order": 3, "cents": 0, "by": "ada"}
    assert asyncio.run(second.call(b'{"order_id": 3}', ADA)) == "order 3 is on its way"
    for wrong in (b'{"order_id": "x"}', b"{}", b'{"order_id": 1, "caller": "bob"}', b'{"order'):
        with pytest.raises(msgspec.DecodeError):
            asyncio.run(first.call(wrong, ADA))


def test_what_the_model_is_told_of_arguments_that_do_not_fit(threads):
    service, script = assistant(
        [Call("status", {"order_id": "seven"}), "Sorry."], usables=[of_tool(status, threads)], pages=None
    )
    (result,) = of_type(told(service, "Where is order seven?"), ToolResult)
    assert result.status == "error"
    assert "Expected `int`, got `str` - at `$.order_id`" in result.content
    assert script.requests[0].tools[0].parameters["properties"]["order_id"]["type"] == "integer"


def test_a_view_that_is_not_served_here(threads):
    with pytest.raises(ConfigError) as caught:
        usables_of(other, threads, {})
    assert caught.value.code == "MS-3064"
    served = Usable("congestion", "", {}, None)
    assert usables_of(other, threads, {"congestion": served}) == [served]


def test_an_endpoint_is_a_tool():
    asked = []

    class Served:
        name = "late"
        keys: ClassVar = {"origin": ColumnType(Kind.STRING)}
        columns: ClassVar = [
            SimpleNamespace(name="distance", type=ColumnType(Kind.FLOAT, nullable=True), feature=None),
            SimpleNamespace(name="delay_1h", type=ColumnType(Kind.FLOAT), feature=0),
        ]

        def answer(self, rows, moments):
            asked.append((rows, moments))
            return [SimpleNamespace(prediction=True, score=0.75, version="3", id="p1")]

    usable = of_endpoint(Served(), "Will a flight be late?", lambda: 42)
    assert usable.schema["properties"] == {"origin": {"type": "string"}, "distance": {"type": "number"}}
    assert usable.schema["required"] == ["origin"]
    found = asyncio.run(usable.call(b'{"origin": "JFK", "distance": 3.5}', ADA))
    assert found == {"prediction": True, "score": 0.75, "version": "3", "id": "p1"}
    assert asked == [(({"origin": "JFK", "distance": 3.5},), (42,))]
    with pytest.raises(DataError, match="delay_1h"):
        asyncio.run(usable.call(b'{"origin": "JFK", "delay_1h": 1}', ADA))


def test_a_feature_view_is_a_tool():
    read = of_features(
        "congestion",
        {"origin": ColumnType(Kind.STRING)},
        lambda keys, now: {"delay": 3.5, **keys, "at": now},
        "",
        lambda: 7,
    )
    assert asyncio.run(read.call(b'{"origin": "JFK"}', ADA)) == {"delay": 3.5, "origin": "JFK", "at": 7}
    assert "congestion" in read.description


def test_results_as_the_model_reads_them():
    assert result_text("plain") == "plain"
    assert result_text({"a": [1, None]}) == '{"a":[1,null]}'
    assert result_text(object).startswith('"<class')
    assert result_text("x" * 40_000).endswith("[8000 more characters left out]")
