"""Messages that a client has compressed, inflated within a bound.

grpcio inflates a message whole before its size is judged, and does not tell its handlers whether it did. With its own
inflating turned off a handler is given the bytes as they were sent, and those say what they are: no message of protobuf
begins with gzip's first byte, whose last three bits are no wire type, and zlib's end in a checksum of what they hold.
"""

from __future__ import annotations

import zlib

from mainspring.protocols.bodies import inflated
from mainspring.protocols.http import Fault

__all__ = ["LEAST", "plain"]

LEAST = 1024
"""Smaller answers are not compressed: it would cost more than it spares."""
_GZIP, _ZLIB = 0x1F, 0x78
_CHECKED = 31
"""What the first two bytes of zlib's format are divisible by (RFC 1950, section 2.2)."""


def plain(data: bytes, most: int) -> tuple[bytes, bool]:
    """A message's bytes without gzip or zlib around them, and whether they were compressed.

    Args:
        data: as it was sent.
        most: greatest message in bytes.

    Raises:
        Fault: 413, it is larger when it is inflated; no more than `most` bytes were. 400, it is broken.
    """
    first = data[0] if data else 0
    if first == _GZIP:
        return inflated(data, b"gzip", most), True
    if first != _ZLIB or int.from_bytes(data[:2]) % _CHECKED:
        return data, False
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, most + 1)
    except zlib.error:  # a message whose first field is number 15, which zlib's format begins like
        return data, False
    if len(found) > most:
        raise Fault(413, "the message is larger than what is taken, when it is inflated")
    return (found, True) if stream.eof and not stream.unused_data else (data, False)
