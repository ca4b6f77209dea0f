"""Scikit-learn estimators from skops files, read by an allow-list."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="runtime",
    name="sklearn",
    factory="mainspring.adapters.sklearn.runtime:open_runtime",
    settings="mainspring.adapters.sklearn.settings:SklearnSettings",
    embedded=True,
    modules=("sklearn", "skops"),
    extra="tabular",
    order=3,
    capabilities={"formats": ("skops",), "platform": "sklearn_skops"},
)
