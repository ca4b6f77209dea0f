"""The contract of the thread store: derive from `ThreadStoreContract` and give it your adapter to open."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from mainspring.assistants.checkpointer import MainspringCheckpointer
from mainspring.lazy import lazy
from mainspring.ports.threads import CallState, Thread, ThreadStore

if TYPE_CHECKING:
    import pytest
    from langgraph.checkpoint import memory
    from langgraph.graph import state as graph_state
else:
    pytest = lazy("pytest")
    memory = lazy("langgraph.checkpoint.memory")
    graph_state = lazy("langgraph.graph.state")

__all__ = ["Opening", "ThreadStoreContract", "thread"]

Opening = Callable[[], ThreadStore]


def thread(name: str = "t1", owner: str = "ada", tenant: str = "", **more: Any) -> Thread:
    """A thread of a test."""
    given = {"assistant": "help_desk", "created_at": 10, "used_at": 10, "expires_at": None, **more}
    return Thread(thread_id=name, owner=owner, tenant=tenant, **given)


class _State(TypedDict):
    total: int
    words: list[str]


@dataclass
class _Odd:
    """A type that no serializer has been told of."""

    code: int


def _graph(saver: Any) -> Any:
    """Two nodes in a row: adds, then notes."""
    builder = graph_state.StateGraph(_State)
    builder.add_node("add", lambda state: {"total": state["total"] + 1})
    builder.add_node("note", lambda state: {"words": [*state["words"], f"é{state['total']}"]})
    builder.add_edge("__start__", "add")
    builder.add_edge("add", "note")
    return builder.compile(checkpointer=saver)


def _config(name: str, run: str = "") -> Any:
    return {"configurable": {"thread_id": name}, "metadata": {"run_id": run} if run else {}}


def _history(saver: Any, name: str) -> list[tuple[Any, ...]]:
    """What a saver knows of a thread, without what differs by clock and chance."""
    return [
        (
            found.metadata.get("step"),
            found.metadata.get("source"),
            {key: value for key, value in found.checkpoint["channel_values"].items() if key in ("total", "words")},
            found.parent_config is not None,
            sorted((channel, str(value)) for _, channel, value in found.pending_writes or () if channel in _STATE),
        )
        for found in saver.list(_config(name))
    ]


_STATE = ("total", "words")


class ThreadStoreContract:
    """What every thread store does.

    A subclass defines the fixture ``opening``: a function that opens the same, at first empty, store each time it is
    called; several may be open at once.
    """

    # -- threads --------------------------------------------------------------------------------------------------

    def test_it_is_the_port(self, opening: Opening) -> None:
        """It has every method."""
        assert isinstance(opening(), ThreadStore)

    def test_what_is_kept_is_what_was_given(self, opening: Opening) -> None:
        """By another opening too; what is not there is None."""
        given = thread(owner="ä'; drop table rag_thread; --", tenant="東京", expires_at=1 << 52)
        opening().create(given)
        assert opening().get("t1") == given
        assert opening().get("t2") is None

    def test_an_owner_has_her_own_threads(self, opening: Opening) -> None:
        """Of her tenant, the latest used first, of one assistant or all."""
        store = opening()
        store.create(thread("a", used_at=1))
        store.create(thread("b", used_at=3, assistant="other"))
        store.create(thread("c", used_at=2))
        store.create(thread("d", owner="bob"))
        store.create(thread("e", tenant="t"))
        assert [one.thread_id for one in store.owned("ada", "")] == ["b", "c", "a"]
        assert [one.thread_id for one in store.owned("ada", "", "help_desk")] == ["c", "a"]
        assert [one.thread_id for one in store.owned("ada", "t")] == ["e"]
        assert list(store.owned("eve", "")) == []

    def test_threads_expire_unless_they_are_used(self, opening: Opening) -> None:
        """At their moment, not before; those without one never."""
        store = opening()
        store.create(thread("a", expires_at=100))
        store.create(thread("b", expires_at=50))
        store.create(thread("c"))
        assert list(store.expired(99)) == ["b"]
        assert list(store.expired(100)) == ["b", "a"]
        assert list(store.expired(100, limit=1)) == ["b"]
        store.touch("b", 60, 200)
        assert list(store.expired(100)) == ["a"]
        assert store.get("b") == thread("b", used_at=60, expires_at=200)

    def test_deleting_takes_all_of_a_thread_and_nothing_else(self, opening: Opening) -> None:
        """Its checkpoints and calls with it."""
        store = opening()
        for name in ("a", "b"):
            store.create(thread(name))
            store.begin_call(name, "c1", 1)
            _graph(store.checkpointer).invoke({"total": 0, "words": []}, _config(name))
        kept = _history(store.checkpointer, "b")
        assert store.delete(["a", "nobody"]) == 1
        assert store.get("a") is None
        assert _history(store.checkpointer, "a") == []
        assert store.begin_call("a", "c1", 2) == CallState("new")
        assert _history(store.checkpointer, "b") == kept != []
        assert store.begin_call("b", "c1", 2) == CallState("unknown")

    # -- claims ---------------------------------------------------------------------------------------------------

    def test_one_run_has_a_thread(self, opening: Opening) -> None:
        """Until it lets it go, or its time is over; it may renew; a thread that is not there has nobody."""
        store, other = opening(), opening()
        store.create(thread())
        assert store.claim("t1", "r1", 0, 10)
        assert not other.claim("t1", "r2", 5, 15)
        assert store.claim("t1", "r1", 8, 18)
        assert not other.claim("t1", "r2", 17, 27)
        assert other.claim("t1", "r2", 18, 28)
        store.release("t1", "r1")
        assert not store.claim("t1", "r1", 20, 30), "it is the other's by now"
        other.release("t1", "r2")
        assert store.claim("t1", "r1", 20, 30)
        assert not store.claim("nobody", "r1", 0, 10)

    def test_of_many_at_once_one_has_it(self, opening: Opening) -> None:
        """Over several openings."""
        opening().create(thread())
        stores = [opening() for _ in range(4)]
        won: list[str] = []
        begin = threading.Barrier(8)

        def run(number: int) -> None:
            begin.wait(20)
            if stores[number % 4].claim("t1", f"r{number}", 0, 10):
                won.append(f"r{number}")

        workers = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert len(won) == 1

    # -- calls ----------------------------------------------------------------------------------------------------

    def test_a_call_is_new_once(self, opening: Opening) -> None:
        """Then it is unknown until its result is noted, for every opening."""
        store, other = opening(), opening()
        assert store.begin_call("t1", "c1", 1) == CallState("new")
        assert other.begin_call("t1", "c1", 2) == CallState("unknown")
        store.finish_call("t1", "c1", "é")
        assert other.begin_call("t1", "c1", 3) == CallState("done", "é")
        assert other.begin_call("t2", "c1", 3) == CallState("new")
        assert other.begin_call("t1", "c2", 3) == CallState("new")

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def test_checkpoints_are_those_of_langgraphs_own_saver(self, opening: Opening) -> None:
        """For two runs in a thread, read by another opening."""
        oracle = memory.InMemorySaver()
        for saver in (oracle, opening().checkpointer):
            graph = _graph(saver)
            graph.invoke({"total": 0, "words": []}, _config("t"))
            graph.invoke({"total": 5}, _config("t"))
        found = _history(opening().checkpointer, "t")
        assert found == _history(oracle, "t")
        assert len(found) == 8
        assert _graph(opening().checkpointer).get_state(_config("t")).values == {"total": 6, "words": ["é1", "é6"]}

    def test_awaited_and_not_awaited_are_one(self, opening: Opening) -> None:
        """Every method has both ways over the same state."""
        saver = MainspringCheckpointer(opening().checkpointer)
        graph = _graph(saver)

        async def go() -> None:
            await graph.ainvoke({"total": 0, "words": []}, _config("t", "r1"))
            assert (await saver.aget_tuple(_config("t"))) == saver.get_tuple(_config("t"))
            assert [found async for found in saver.alist(_config("t"), limit=3)] == list(
                saver.list(_config("t"), limit=3)
            )
            await saver.acopy_thread("t", "u")
            await saver.aprune(["u"])
            assert len([found async for found in saver.alist(_config("u"))]) == 1
            await saver.adelete_thread("u")
            await saver.adelete_for_runs(["r1"])

        asyncio.run(go())
        assert list(saver.list(_config("t"))) == list(saver.list(_config("u"))) == []

    def test_a_copy_goes_its_own_way(self, opening: Opening) -> None:
        """It has the whole history, and what happens in one does not happen in the other."""
        saver = opening().checkpointer
        graph = _graph(saver)
        graph.invoke({"total": 0, "words": []}, _config("t"))
        saver.copy_thread("t", "u")
        assert _history(saver, "u") == _history(saver, "t")
        graph.invoke({"total": 7}, _config("u"))
        assert graph.get_state(_config("t")).values == {"total": 1, "words": ["é1"]}
        assert graph.get_state(_config("u")).values == {"total": 8, "words": ["é1", "é8"]}

    def test_pruning_keeps_what_the_next_run_needs(self, opening: Opening) -> None:
        """The latest checkpoint of the threads that are named, and all of the others."""
        saver = opening().checkpointer
        graph = _graph(saver)
        for name in ("t", "u"):
            graph.invoke({"total": 0, "words": []}, _config(name))
        saver.prune(["t"])
        assert (len(_history(saver, "t")), len(_history(saver, "u"))) == (1, 4)
        graph.invoke({"total": 4}, _config("t"))
        assert graph.get_state(_config("t")).values == {"total": 5, "words": ["é1", "é5"]}
        saver.prune(["t"], strategy="delete")
        assert _history(saver, "t") == []
        with pytest.raises(ValueError, match="keep_all"):
            saver.prune(["u"], strategy="keep_all")

    def test_what_a_run_has_made_can_be_taken_back(self, opening: Opening) -> None:
        """Only that, in all threads."""
        saver = opening().checkpointer
        graph = _graph(saver)
        graph.invoke({"total": 0, "words": []}, _config("t", "r1"))
        before = _history(saver, "t")
        graph.invoke({"total": 9}, _config("t", "r2"))
        graph.invoke({"total": 9, "words": []}, _config("u", "r2"))
        saver.delete_for_runs(["r2", "r3"])
        assert _history(saver, "t") == before
        assert _history(saver, "u") == []

    def test_no_type_is_built_that_was_not_allowed(self, opening: Opening) -> None:
        """What somebody writes into the database cannot choose what runs here."""
        saver = opening().checkpointer
        kind, data = saver.serde.dumps_typed({"odd": _Odd(3)})
        assert kind == "msgpack"
        assert not isinstance(saver.serde.loads_typed((kind, data))["odd"], _Odd)
        with pytest.raises(NotImplementedError):
            saver.serde.loads_typed(("pickle", b"cos\nsystem\n(S'true'\ntR."))
        allowed = MainspringCheckpointer(saver).with_allowlist([(_Odd.__module__, "_Odd")])
        assert allowed.serde.loads_typed((kind, data))["odd"] == _Odd(3)
