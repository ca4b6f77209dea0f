"""Pictures in requests: their bytes, in the request; nothing is ever fetched."""

from __future__ import annotations

import base64
import binascii

from mainspring.ports.llm import Image
from mainspring.protocols.llm.faults import bad

__all__ = ["picture", "picture_of_url"]

_KINDS = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
_MOST = 20 << 20


def picture(media_type: str, data: str, param: str) -> Image:
    """A picture from its base64 text, 20 MiB at most.

    Raises:
        LLMFault: 400.
    """
    if media_type not in _KINDS:
        raise bad(f"pictures are {', '.join(sorted(_KINDS))}; not {media_type!r}", param)
    if len(data) > _MOST * 4 // 3:
        raise bad(f"a picture is larger than {_MOST >> 20} MiB", param)
    try:
        return Image(base64.b64decode(data, validate=True), media_type)
    except (binascii.Error, ValueError):
        raise bad("a picture is not valid base64", param) from None


def picture_of_url(url: str, param: str) -> Image:
    """A picture from a ``data:`` address.

    Raises:
        LLMFault: 400, also for every address that would have to be fetched.
    """
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise bad("pictures are given as data:image/...;base64, addresses: nothing is fetched", param)
    return picture(head[5:-7], data, param)
