"""The runtime port on PyTorch: TorchScript, and programs of ``torch.export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.adapters.torch.settings import TorchSettings
from mainspring.lazy import lazy
from mainspring.ports.runtime import Card, loading

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
else:
    np, torch = lazy("numpy"), lazy("torch")

__all__ = ["ModulePredictor", "TorchRuntime", "open_runtime"]


class ModulePredictor:
    """A module that takes a matrix and gives (rows,), (rows, 1) or (rows, 2)."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """One score a row."""
        with torch.inference_mode():
            found = self._module(torch.from_numpy(np.ascontiguousarray(matrix)))
        values = np.asarray(found.numpy(), dtype=np.float64)
        return values[:, -1] if values.ndim == 2 else values


class TorchRuntime:
    """Loads TorchScript archives (``.pt``) and exported programs (``.pt2``)."""

    def __init__(self, settings: TorchSettings) -> None:
        self._threads = settings.threads

    def load(self, folder: Path, card: Card) -> ModulePredictor:
        """Load a module, in evaluation mode, on the processor.

        Raises:
            RefusedError: MS-4341, its digest is not the recorded one.
            StoreError: MS-4150, it is no such archive.
        """
        with loading(folder, card) as path:
            torch.set_num_threads(self._threads)
            if card.format == "exported":
                return ModulePredictor(torch.export.load(str(path)).module())
            return ModulePredictor(torch.jit.load(str(path), map_location="cpu").eval())


def open_runtime(settings: TorchSettings, place: Path) -> TorchRuntime:
    """The runtime."""
    return TorchRuntime(settings)
