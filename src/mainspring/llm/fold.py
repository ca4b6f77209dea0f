"""An answer's events folded into what they add up to: the one reading of a stream that every wire renders from."""

from __future__ import annotations

from typing import Literal

import msgspec

from mainspring.ports.llm import End, Event, Reason, Reasoning, Start, Text, TokenLogprob, ToolDelta, Usage

__all__ = ["Answer", "Item", "Kind", "fold"]

Kind = Literal["text", "reasoning", "call"]


class Item(msgspec.Struct, gc=False):
    """A run of one kind in a choice's answer.

    Attributes:
        kind: text, thoughts, or a tool call.
        parts: the pieces of its text, or of the call's arguments.
        logprobs: of its tokens.
        index: of a call: its number in the choice.
        id: of a call.
        name: of a call: the tool.
    """

    kind: Kind
    parts: list[str] = []
    logprobs: list[TokenLogprob] = []
    index: int = 0
    id: str = ""
    name: str = ""

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.parts)


class Answer(msgspec.Struct, gc=False):
    """A whole answer.

    Attributes:
        items: by choice, what it is made of in the order in which it began.
        start: what the engine said when it accepted.
        end: how it ended; None while it has not.
        mixed: whether a tool call went on after something else had begun.
    """

    items: list[list[Item]]
    start: Start = Start()
    end: End | None = None
    mixed: bool = False

    def parts(self, choice: int = 0) -> tuple[str, str, list[Item]]:
        """The text of a choice, what it thought, and its tool calls."""
        text, thoughts, calls = [], [], []
        for item in self.items[choice]:
            if item.kind == "text":
                text += item.parts
            elif item.kind == "reasoning":
                thoughts += item.parts
            else:
                calls.append(item)
        return "".join(text), "".join(thoughts), calls

    def text(self, choice: int = 0) -> str:
        """The text of a choice."""
        return self.parts(choice)[0]

    def reasoning(self, choice: int = 0) -> str:
        """What a choice thought."""
        return self.parts(choice)[1]

    def calls(self, choice: int = 0) -> list[Item]:
        """The tool calls of a choice."""
        return self.parts(choice)[2]

    def logprobs(self, choice: int = 0) -> list[TokenLogprob]:
        """The log probabilities of a choice's text."""
        return [found for item in self.items[choice] for found in item.logprobs]

    def reason(self, choice: int = 0) -> Reason:
        """Why a choice ended."""
        reasons = self.end.reasons if self.end is not None else ()
        return reasons[choice] if choice < len(reasons) else "stop"

    @property
    def usage(self) -> Usage:
        """Tokens; the gateway has counted where the engine did not."""
        usage = self.end.usage if self.end is not None else None
        return usage or Usage(self.start.prompt_tokens or 0, 0)

    def add(self, event: Event) -> Item | None:
        """Take the next event; the item that it added to, if any."""
        if type(event) is Text:
            item = self._last(event.choice, "text")
            item.parts.append(event.text)
            if event.logprobs:
                item.logprobs.extend(event.logprobs)
            return item
        if type(event) is ToolDelta:
            return self._call(event)
        if type(event) is Reasoning:
            item = self._last(event.choice, "reasoning")
            item.parts.append(event.text)
            return item
        if isinstance(event, Start):
            self.start = event
        elif isinstance(event, End):
            self.end = event
        return None

    def _last(self, choice: int, kind: Kind) -> Item:
        items = self.items[choice]
        if not items or items[-1].kind != kind:
            items.append(Item(kind))
        return items[-1]

    def _call(self, event: ToolDelta) -> Item:
        items = self.items[event.choice]
        item = next((item for item in reversed(items) if item.kind == "call" and item.index == event.index), None)
        if item is None:
            item = Item("call", index=event.index)
            items.append(item)
        elif items[-1] is not item:
            self.mixed = True
        item.id = item.id or event.id
        item.name = item.name or event.name
        if event.arguments:
            item.parts.append(event.arguments)
        return item


def fold(choices: int) -> Answer:
    """An answer without events yet, of so many choices."""
    return Answer([[]] if choices == 1 else [[] for _ in range(choices)])
