"""XGBoost boosters from their own binary JSON files."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="runtime",
    name="xgboost",
    factory="mainspring.adapters.xgboost.runtime:open_runtime",
    settings="mainspring.adapters.xgboost.settings:XgboostSettings",
    embedded=True,
    modules=("xgboost",),
    extra="xgboost",
    order=4,
    capabilities={"formats": ("xgboost",), "platform": "xgboost_booster"},
)
