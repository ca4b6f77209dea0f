"""Kafka's errors turned into cause and remedy."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from mainspring.errors import ConfigError, DataError, MainspringError, ServiceError

__all__ = ["silent", "turned"]

_GONE = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
_SHUT = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
}
_UNFIT = {KafkaError._INVALID_ARG, KafkaError._UNKNOWN_PROTOCOL}


def silent(place: str, seconds: float) -> ServiceError:
    """Nothing came for too long."""
    return ServiceError(
        f"Kafka went silent at {place}",
        code="MS-4222",
        why=f"no message and no end of a partition came for {seconds:g} s",
        origin=place,
        fix="look whether its brokers run, or raise sources.NAME.timeout",
    )


def turned(error: KafkaException | KafkaError, place: str) -> MainspringError:
    """The error as people should see it."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    code = cause.code() if isinstance(cause, KafkaError) else None
    text = cause.str() if isinstance(cause, KafkaError) else str(cause)
    if code in _UNFIT:
        return ConfigError(
            f"an option of {place} is unknown to its driver",
            code="MS-3042",
            why=text,
            origin="sources.NAME.options",
            fix="write librdkafka's own with _ for its points: security_protocol, sasl_username, ...",
        )
    if code in _GONE:
        return DataError(
            f"{place} has no such topic",
            code="MS-2150",
            why=text,
            origin=place,
            fix="look at the topic in sources.NAME.url: kafka://host:9092/topic",
        )
    if code in _SHUT:
        return ServiceError(
            f"Kafka lets nobody in with these credentials at {place}",
            code="MS-4221",
            why=text,
            origin=place,
            fix="look at sources.NAME.options: security_protocol, sasl_mechanism, sasl_username, sasl_password",
        )
    return ServiceError(
        f"Kafka does not answer at {place}",
        code="MS-4220",
        why=text,
        origin=place,
        fix="look whether it runs, and at the brokers in sources.NAME.url",
    )
