"""Server-sent events, by bytes: what is split anywhere comes out whole."""

from __future__ import annotations

from mainspring.ports.llm import Error
from mainspring.upstream.faults import BrokenError

__all__ = ["EventData"]

MOST = 8 << 20


class EventData:
    """Takes pieces of a ``text/event-stream`` and gives the data of each whole event; comments and names are left out.

    Lines end with LF, CRLF or CR; a piece may end inside of a line end or of a character.
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that are whole now.

        Raises:
            BrokenError: one event is larger than 8 MiB.
        """
        rest = self._rest + piece if self._rest else piece
        held = b""
        if b"\r" in rest:
            if rest.endswith(b"\r"):  # perhaps the half of a CRLF
                rest, held = rest[:-1], b"\r"
            rest = rest.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *events, rest = rest.split(b"\n\n")
        self._rest = rest + held
        if len(self._rest) > MOST:
            raise BrokenError(Error("upstream", "the upstream sent an event larger than 8 MiB"))
        return [data for event in events if (data := _data(event)) is not None]

    def finish(self) -> list[bytes]:
        """The data of a last event that no empty line has ended."""
        rest, self._rest = self._rest, b""
        data = _data(rest.replace(b"\r", b"\n"))
        return [] if data is None else [data]


def _data(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
