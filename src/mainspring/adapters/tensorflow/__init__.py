"""TensorFlow as a runtime of models that were brought along."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="runtime",
    name="tensorflow",
    factory="mainspring.adapters.tensorflow.runtime:open_runtime",
    settings="mainspring.adapters.tensorflow.settings:TensorflowSettings",
    embedded=True,
    modules=("tensorflow",),
    extra="tensorflow",
    order=7,
    capabilities={"formats": ("savedmodel",), "platform": "tensorflow_savedmodel"},
)
