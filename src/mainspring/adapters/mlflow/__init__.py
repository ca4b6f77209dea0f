"""MLflow as a runtime of models that were brought along."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="runtime",
    name="mlflow",
    factory="mainspring.adapters.mlflow.runtime:open_runtime",
    settings="mainspring.adapters.mlflow.settings:MlflowSettings",
    embedded=True,
    modules=("mlflow",),
    extra="mlflow",
    order=5,
    capabilities={"formats": ("pyfunc",), "platform": "mlflow_pyfunc"},
)
