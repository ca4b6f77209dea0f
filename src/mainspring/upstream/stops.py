"""Stop texts over the edges of pieces."""

from __future__ import annotations

__all__ = ["StopScanner"]


class StopScanner:
    """Looks for the first of several texts in a text that comes in pieces, and lets nothing of it through.

    Holds back no more than the beginning of a stop text that the end so far may be.

    Attributes:
        held: what is held back.
        stopped_by: the text that was found, or empty.
    """

    __slots__ = ("_stops", "held", "stopped_by")

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self.held = ""
        self.stopped_by = ""

    def feed(self, piece: str) -> str:
        """What of all that came is certainly before any stop text."""
        if not self._stops:
            return piece
        text = self.held + piece
        found = [(place, -len(stop), stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            place, _, self.stopped_by = min(found)
            self.held = ""
            return text[:place]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self.held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """What was held back, when no stop text came."""
        held, self.held = self.held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many signs of the stop text's beginning are the text's end, short of all."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
