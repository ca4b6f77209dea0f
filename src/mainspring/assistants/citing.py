"""Citations in an answer as it streams: each marker is checked before it is sent; what does not hold is taken out.

The text that comes out does not depend on how the answer was cut into pieces.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from mainspring.assistants.events import Cited, Text
from mainspring.assistants.sources import Checked, Sources
from mainspring.assistants.text import MARKER, is_refusal, sentences

__all__ = ["Citing"]

Check = Callable[[int, str], Awaitable[Checked | None]]

_OPEN = re.compile(r"\s*(?:\[[\d,; ]{0,45})?$")
"""What may become a marker when more comes, with the space before it."""
_NUMBER = re.compile(r"\d+")
_SAY, _BETWEEN, _SILENT = "The sources say:", "\n\n", "The sources do not say."


class Citing:
    """Passes an answer on, with its citations checked.

    Args:
        sources: what may be cited; without any, the text passes as it is.
        must_stand: asked at the end whether the answer has to stand on a source; one that has to and does not is
            replaced by what the sources say. The whole answer is held back until then. None: it never has to.

    Attributes:
        answer: what has been sent.
        cited: the citations that hold.
        dropped: how many did not.
    """

    def __init__(self, sources: Sources, must_stand: Callable[[], bool] | None = None) -> None:
        self._sources = sources
        self._must_stand = must_stand
        self._held = ""
        self._ended = -1
        self.answer = ""
        self.cited: list[Cited] = []
        self.dropped = 0

    async def feed(self, piece: str) -> list[Text | Cited]:
        """What may be sent now that more of the answer has come."""
        if self._must_stand is not None:
            self._held += piece
            return []
        if not self._sources.found:
            return self._send(piece)
        self._held += piece
        match = _OPEN.search(self._held)
        cut = match.start() if match else len(self._held)
        ready, self._held = self._held[:cut], self._held[cut:]
        return await self._checked(ready)

    async def close(self) -> list[Text | Cited]:
        """The rest, when the answer is whole; where the model cited nothing, what it stands on by its own words."""
        rest, self._held = self._held, ""
        sent = await self._checked(rest) if self._sources.found else self._send(rest)
        if self._sources.found and not self.cited and not is_refusal(self.answer):
            sent += await self._by_overlap()
        stands = self.cited or is_refusal(self.answer) or not self.answer.strip()
        if self._must_stand is None or stands or not self._must_stand():
            return sent
        self.answer = ""
        return await self._quoted()

    async def _quoted(self) -> list[Text | Cited]:
        """What the sources say of the question, in their own words; a refusal where they do not."""
        found = await self._sources.quotations()
        if not found:
            return self._send(_SILENT)
        sent = self._send(_SAY)
        for one in found:
            start = len(self.answer) + len(_BETWEEN)
            said = " ".join(one.citation.quote.split())
            sent += self._send(f"{_BETWEEN}{said} [{one.number}]")
            sent.append(self._cite(one, start, start + len(said), by_model=False))
        return sent

    def _send(self, text: str) -> list[Text | Cited]:
        self.answer += text
        return [Text(text=text)] if text else []

    async def _checked(self, text: str) -> list[Text | Cited]:
        sent: list[Text | Cited] = []
        done = 0
        for match in MARKER.finditer(text):
            sent += await self._marker(text[done : match.start()], match[0])
            done = match.end()
        return sent + self._send(text[done:])

    async def _marker(self, before: str, marker: str) -> list[Text | Cited]:
        """The text before a marker, and of the marker what holds."""
        numbers = [int(number) for number in _NUMBER.findall(marker)]
        if self._is_code(self.answer + before, numbers):
            return self._send(before + marker)
        start, end = _last_sentence((self.answer + before).rstrip())
        sentence = (self.answer + before)[start:end]
        checked = [await self._sources.check(number, sentence) for number in numbers]
        held = [found for found in checked if found is not None]
        self.dropped += len(checked) - len(held)
        if not held:
            return self._send(before.rstrip())
        kept = "[" + ", ".join(str(found.number) for found in held) + "]"
        sent = self._send(before + kept)
        self._ended = len(self.answer)
        return [*sent, *(self._cite(found, start, end) for found in held)]

    def _cite(self, found: Checked, start: int, end: int, by_model: bool = True) -> Cited:
        cited = Cited(
            number=found.number,
            start=start,
            end=end,
            by="model" if by_model else "overlap",
            citation=found.citation,
        )
        self.cited.append(cited)
        return cited

    def _is_code(self, before: str, numbers: list[int]) -> bool:
        """Whether a marker is an index in code: within backticks, or right behind a name when no source has it."""
        if before.count("`") % 2:
            return True
        if len(before) == self._ended or all(1 <= number <= len(self._sources.found) for number in numbers):
            return False
        return before[-1:].isalnum() or before.endswith(("_", ")", "]"))

    async def _by_overlap(self) -> list[Text | Cited]:
        sent: list[Text | Cited] = []
        said: set[str] = set()  # small models repeat themselves
        for start, end in sentences(self.answer):
            sentence = self.answer[start:end]
            if sentence in said:
                continue
            said.add(sentence)
            number = self._sources.supporting(sentence)
            found = None if number is None else await self._sources.check(number, sentence)
            if found is not None:
                sent.append(self._cite(found, start, end, by_model=False))
        return sent


def _last_sentence(text: str) -> tuple[int, int]:
    last = (0, 0)
    for span in sentences(text):
        last = span
    return last
