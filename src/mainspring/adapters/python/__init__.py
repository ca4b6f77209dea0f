"""Any Python object that predicts, from a pickle that the catalog vouches for."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="runtime",
    name="python",
    factory="mainspring.adapters.python.runtime:open_runtime",
    settings="mainspring.adapters.python.settings:PythonSettings",
    embedded=True,
    modules=("numpy",),
    extra="tabular",
    order=9,
    capabilities={"formats": ("pickle",), "platform": "python"},
)
