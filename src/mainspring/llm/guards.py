"""Guards on what is asked and what is answered; on streams they hold back what could still become a finding."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from mainspring.ports.llm import Generation, Message

__all__ = ["AskedPatterns", "Finding", "Hold", "InputGuard", "OutputGuard", "Patterns", "Refusal"]


class Refusal(msgspec.Struct, frozen=True):
    """A request or an answer that a guard does not let through; `why` is shown to the client."""

    guard: str
    why: str


class InputGuard(Protocol):
    """Sees a request before anything of it is sent."""

    @property
    def name(self) -> str:
        """What refusals and traces call it."""

    def check(self, request: Generation) -> Generation | Refusal:
        """The request as it may go on, changed or not, or a refusal."""


class Finding(msgspec.Struct, frozen=True):
    """A place in a text: [start, end), and what takes its place; None refuses the answer from there on."""

    start: int
    end: int
    replacement: str | None


class OutputGuard(Protocol):
    """Sees an answer before it is sent, in pieces."""

    @property
    def name(self) -> str:
        """What refusals and traces call it."""

    @property
    def longest(self) -> int:
        """Characters of the longest thing that it may find; so many less one are held back on a stream."""

    def find(self, text: str, start: int) -> Sequence[Finding]:
        """What it finds from `start` on, in order and apart; what is before is there to be looked at only."""


class Patterns:
    """Replaces or refuses what a pattern matches, in answers.

    Args:
        name: what refusals call it.
        pattern: a regular expression; its matches are no longer than `longest`.
        longest: characters.
        replacement: what takes the place of a match; None refuses the answer.
    """

    def __init__(self, name: str, pattern: str, longest: int, replacement: str | None = None) -> None:
        self.name = name
        self.longest = longest
        self._pattern = re.compile(pattern)
        self._replacement = replacement

    def find(self, text: str, start: int) -> Sequence[Finding]:
        """All matches from `start` on; one that is longer than was said is cut there."""
        found = []
        for match in self._pattern.finditer(text, start):
            if match.end() > match.start():
                end = min(match.end(), match.start() + self.longest)
                found.append(Finding(match.start(), end, self._replacement))
        return found


class AskedPatterns:
    """Replaces or refuses what a pattern matches, in what people and tools say to a model.

    Args:
        name: what refusals call it.
        pattern: a regular expression.
        replacement: what takes the place of a match; None refuses the request.
    """

    def __init__(self, name: str, pattern: str, replacement: str | None = None) -> None:
        self.name = name
        self._pattern = re.compile(pattern)
        self._replacement = replacement

    def check(self, request: Generation) -> Generation | Refusal:
        """The request without what is found, or a refusal; a prompt of token ids cannot be read and is let through."""
        prompt = request.prompt
        texts = [prompt] if isinstance(prompt, str) else []
        texts += [
            part for turn in request.messages if _is_asked(turn) for part in turn.content if isinstance(part, str)
        ]
        if not any(self._pattern.search(text) for text in texts):
            return request
        if self._replacement is None:
            return Refusal(self.name, "it holds what must not be asked")
        return msgspec.structs.replace(
            request,
            prompt=self._without(prompt) if isinstance(prompt, str) else prompt,
            messages=tuple(self._cleared(turn) if _is_asked(turn) else turn for turn in request.messages),
        )

    def _cleared(self, turn: Message) -> Message:
        content = tuple(self._without(part) if isinstance(part, str) else part for part in turn.content)
        return msgspec.structs.replace(turn, content=content)

    def _without(self, text: str) -> str:
        replacement = self._replacement or ""
        return self._pattern.sub(lambda match: replacement, text)


def _is_asked(turn: Message) -> bool:
    return turn.role in ("user", "tool")


class Hold:
    """One guard over one choice's text: lets through what can be part of no finding any more.

    What comes out depends on the text alone, never on where it was cut into pieces.

    Attributes:
        refused: whether the guard refuses the rest.
    """

    __slots__ = ("_before", "_find", "_longest", "_text", "refused")

    def __init__(self, longest: int, find: Callable[[str, int], Sequence[Finding]]) -> None:
        self._longest = max(longest, 1)
        self._find = find
        self._text = ""
        self._before = 0
        self.refused = False

    def feed(self, text: str) -> str:
        """Take a piece; what may go on now."""
        self._text += text
        return self._let_go(len(self._text) - self._longest + 1)

    def end(self) -> str:
        """No more comes; the rest."""
        return self._let_go(len(self._text))

    def _let_go(self, safe: int) -> str:
        """Everything before `safe` goes out: a match that starts there ends within the text that is here."""
        start = self._before
        if self.refused or safe <= start:
            return ""
        text, parts = self._text, []
        for finding in self._find(text, start):
            if finding.start >= safe:
                break
            parts.append(text[start : finding.start])
            start = finding.end
            if finding.replacement is None:
                self.refused = True
                return "".join(parts)
            parts.append(finding.replacement)
        if start < safe:
            parts.append(text[start:safe])
            start = safe
        kept = max(start - self._longest, 0)
        self._text, self._before = text[kept:], start - kept
        return "".join(parts)
