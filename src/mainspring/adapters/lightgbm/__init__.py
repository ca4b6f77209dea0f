"""LightGBM boosters from their own text files."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="runtime",
    name="lightgbm",
    factory="mainspring.adapters.lightgbm.runtime:open_runtime",
    settings="mainspring.adapters.lightgbm.settings:LightgbmSettings",
    embedded=True,
    modules=("lightgbm",),
    extra="tabular",
    order=2,
    capabilities={"formats": ("lightgbm",), "platform": "lightgbm_booster"},
)
