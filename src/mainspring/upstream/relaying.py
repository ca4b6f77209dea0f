"""Bytes from an upstream as they are, for a gateway that need not look into them."""

from __future__ import annotations

from mainspring.ports.llm import Error, Relayed
from mainspring.upstream.faults import BrokenError
from mainspring.upstream.generations import Ticket
from mainspring.upstream.reply import Reply
from mainspring.upstream.stream import Waits

__all__ = ["relayed"]


async def relayed(reply: Reply, ticket: Ticket, waits: Waits) -> Relayed | Error:
    """An answer as it is; the ticket ends with it, and cancelling the ticket closes the connection."""
    ticket.stop = reply.close
    try:
        await reply.head(waits.first_token)
    except BaseException as error:
        reply.close()
        ticket.__exit__(None, None, None)
        if isinstance(error, BrokenError):
            return error.event
        raise
    return Relayed(reply.status, reply.headers, _Pieces(reply, ticket, waits))


class _Pieces:
    """The body; unlike a generator, one that was never begun can be closed."""

    def __init__(self, reply: Reply, ticket: Ticket, waits: Waits) -> None:
        self._reply = reply
        self._ticket = ticket
        self._waits = waits

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._reply.piece(self._waits.inter_token, "the next token")
        except BaseException:
            await self.aclose()
            raise
        if not piece:
            await self.aclose()
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Be done with it."""
        self._reply.close()
        self._ticket.__exit__(None, None, None)
