"""What happens to an answer's events on their way out: stop texts and guards, each with the least hold-back."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mainspring.llm.guards import Hold, OutputGuard
from mainspring.ports.llm import Event, Reason, Text

__all__ = ["Filters", "Stopper"]


class Stopper:
    """Ends one choice's text before a stop text, wherever its characters were cut into pieces.

    Held back is only what may be the beginning of a stop text, so most pieces go on as they came.

    Attributes:
        found: the stop text that ended the choice, or empty.
    """

    __slots__ = ("_held", "_stops", "found")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found = ""

    def feed(self, text: str) -> str:
        """Take a piece; what may go on now."""
        if self.found:
            return ""
        text = self._held + text
        # The one that ends first, as a reader of single characters would see it.
        ends = [(place + len(stop), place, stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        if ends:
            _, place, self.found = min(ends)
            self._held = ""
            return text[:place]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """No more comes; the rest."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text may begin a stop text."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0


class _Choice(msgspec.Struct):
    stopper: Stopper
    holds: tuple[Hold, ...]
    tokens: int = 0
    over: Reason | None = None


class Filters:
    """The filters of one answer, choice by choice.

    Args:
        stops: texts that end a choice.
        guards: in the order in which they see the text.
        choices: how many choices there are.

    Attributes:
        refused_by: the name of the guard that refused a choice, or empty.
    """

    __slots__ = ("_choices", "_guards", "refused_by")

    def __init__(self, stops: Sequence[str], guards: Sequence[OutputGuard], choices: int) -> None:
        self._guards = tuple(guards)
        self._choices = [
            _Choice(Stopper(stops), tuple(Hold(guard.longest, guard.find) for guard in guards)) for _ in range(choices)
        ]
        self.refused_by = ""

    def feed(self, event: Text) -> Text | None:
        """Take a piece of a choice; what of it and of what was held back may go on."""
        choice = self._choices[event.choice]
        if choice.over is not None:
            return None
        text = choice.stopper.feed(event.text)
        stopped = bool(choice.stopper.found)
        text = self._through(choice, text, last=stopped)
        if stopped and choice.over is None:
            choice.over = "stop"
        tokens = choice.tokens + event.tokens
        if not text and not event.logprobs:
            choice.tokens = tokens
            return None
        choice.tokens = 0
        if text == event.text and tokens == event.tokens:
            return event
        return Text(text, tokens, event.choice, event.logprobs)

    def rest(self) -> list[Event]:
        """The answer is whole: what was still held back."""
        found: list[Event] = []
        for number, choice in enumerate(self._choices):
            if choice.over is None:
                text = self._through(choice, choice.stopper.end(), last=True)
                if text:
                    found.append(Text(text, choice.tokens, number))
        return found

    def over(self) -> bool:
        """Whether every choice has ended here, so that nothing more is needed from the engine."""
        return all(choice.over is not None for choice in self._choices)

    def reasons(self, given: Sequence[Reason]) -> tuple[Reason, ...]:
        """Why each choice ended: as the engine says, save where it ended here."""
        own = [choice.over for choice in self._choices]
        return tuple(mine or (given[n] if n < len(given) else "stop") for n, mine in enumerate(own))

    def stopped_by(self, given: Sequence[str]) -> tuple[str, ...]:
        """The stop text that ended each choice, or empty."""
        return tuple(
            choice.stopper.found or (given[number] if number < len(given) else "")
            for number, choice in enumerate(self._choices)
        )

    def _through(self, choice: _Choice, text: str, *, last: bool) -> str:
        for guard, hold in zip(self._guards, choice.holds, strict=True):
            text = hold.feed(text)
            if last:
                text += hold.end()
            if hold.refused:
                choice.over = "content_filter"
                self.refused_by = guard.name
                last = True
        return text
