"""A LangChain chat model for tests; unlike LangChain's own fakes it binds tools and streams calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pydantic import PrivateAttr

from mainspring.assistants.chat import ChatMainspring
from mainspring.ports.llm import Generation
from mainspring.testing.script import Script, Turn

__all__ = ["ScriptedChat"]


class ScriptedChat(ChatMainspring):
    """A chat model that says what a test wants: ``ScriptedChat(["Hello", Call("order_status", {"order_id": 17})])``.

    Args:
        turns: one for each request; see `mainspring.testing.script.Turn`.
        **settings: those of `ChatMainspring`.
    """

    _script: Script = PrivateAttr()

    def __init__(self, turns: Iterable[Turn] | Callable[[Generation], Turn] = (), **settings: Any) -> None:
        script = Script(turns)
        super().__init__(**{"model": "scripted", "generate": script.generate, **settings})
        self._script = script

    @property
    def requests(self) -> list[Generation]:
        """What it was asked, in order."""
        return self._script.requests

    @property
    def cancelled(self) -> list[str]:
        """The ids of requests that were left before their end."""
        return self._script.cancelled
