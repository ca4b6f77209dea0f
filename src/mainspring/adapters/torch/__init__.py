"""PyTorch as a runtime of models that were brought along."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="runtime",
    name="torch",
    factory="mainspring.adapters.torch.runtime:open_runtime",
    settings="mainspring.adapters.torch.settings:TorchSettings",
    embedded=True,
    modules=("torch",),
    extra="torch",
    order=6,
    capabilities={"formats": ("torchscript", "exported"), "platform": "pytorch"},
)
