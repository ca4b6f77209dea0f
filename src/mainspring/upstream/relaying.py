"""Bytes from an upstream as they are, for a gateway that need not look into them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from mainspring.ports.llm import Error, Relayed
from mainspring.upstream.faults import BrokenError
from mainspring.upstream.generations import Ticket
from mainspring.upstream.reply import Reply, body_of
from mainspring.upstream.stream import Waits

__all__ = ["relayed"]


_REFUSED = 400
_MOST_REFUSED = 64 << 10


async def relayed(reply: Reply, ticket: Ticket, waits: Waits, secret: str = "") -> Relayed | Error:
    """An answer as it is; the ticket ends with it, and cancelling the ticket closes the connection.

    Args:
        reply: the answer, not yet waited for.
        ticket: of the request.
        waits: how long its head may take, and each of its parts.
        secret: a text that no refusal may tell.
    """
    ticket.stop = reply.close
    try:
        await reply.head(waits.first_token)
        if secret and reply.status >= _REFUSED:
            return await _without(secret, reply, ticket, waits)
    except BaseException as error:
        reply.close()
        ticket.__exit__(None, None, None)
        if isinstance(error, BrokenError):
            return error.event
        raise
    return Relayed(reply.status, reply.headers, _Pieces(reply, ticket, waits))


async def _without(secret: str, reply: Reply, ticket: Ticket, waits: Waits) -> Relayed:
    """A refusal: short, and read whole, as a secret may come in two halves."""
    body = (await body_of(reply, waits.inter_token, _MOST_REFUSED)).replace(secret.encode(), b"***")
    reply.close()
    ticket.__exit__(None, None, None)
    headers = {name: value for name, value in reply.headers.items() if name not in ("content-length", "etag")}
    return Relayed(reply.status, headers, _whole(body))


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


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
