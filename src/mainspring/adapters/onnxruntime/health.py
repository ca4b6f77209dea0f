"""Whether the library can run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.lazy import lazy
from mainspring.ports.embedder import Embedder

if TYPE_CHECKING:
    import onnxruntime as ort
else:
    ort = lazy("onnxruntime")

__all__ = ["health"]


def health(port: object) -> dict[str, object]:
    """The library's version and providers; of an embedder, that it embeds."""
    found: dict[str, object] = {"version": ort.__version__, "providers": ort.get_available_providers()}
    if isinstance(port, Embedder):
        found |= {"model": port.id, "embeds": len(port.embed_documents(["Is anybody there?"])[0]) == port.dims}
    return found
