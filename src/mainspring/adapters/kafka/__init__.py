"""Sources in Apache Kafka, and what speaks its protocol."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="source",
    name="kafka",
    factory="mainspring.adapters.kafka.source:open_source",
    settings="mainspring.ports.source:SourceSettings",
    schemes=("kafka",),
    modules=("confluent_kafka", "pyarrow"),
    extra="kafka",
    capabilities={"reads": "messages"},
)
