"""Spans for an OpenTelemetry collector: OTLP over HTTP in protobuf, from the recorder's thread, never on the way."""

from __future__ import annotations

import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from mainspring.errors import ServiceError
from mainspring.llm.otlp_messages import CLIENT, OtlpSpan, otlp_request, rejected_of
from mainspring.llm.record import CallRecord

__all__ = ["NAMES", "OtlpSpans", "span_of"]

NAMES: Mapping[str, str] = {
    "operation": "gen_ai.operation.name",
    "provider": "gen_ai.provider.name",
    "asked_model": "gen_ai.request.model",
    "model": "gen_ai.response.model",
    "id": "gen_ai.response.id",
    "finish": "gen_ai.response.finish_reasons",
    "input": "gen_ai.usage.input_tokens",
    "output": "gen_ai.usage.output_tokens",
    "cached": "gen_ai.usage.cache_read.input_tokens",
    "cache_write": "gen_ai.usage.cache_write.input_tokens",
    "reasoning": "gen_ai.usage.reasoning.output_tokens",
    "first_chunk": "gen_ai.response.time_to_first_chunk",
    "error": "error.type",
    "cache": "mainspring.cache",
    "similarity": "mainspring.cache.similarity",
}
"""What the attributes are called in the version of the GenAI conventions that is emitted; it has none for caches."""

Record = TypeVar("Record")

_OPERATIONS = {"embeddings": "embeddings", "completions": "text_completion", "passthrough": "passthrough"}
_SECONDS = 10.0
_AGAIN_SECONDS = 60.0
"""A collector that takes only a part of the spans is told of once in so long."""
_ANSWER_BYTES = 65_536
"""More of an answer is not read."""
_WHY_CHARACTERS = 200


def span_of(record: CallRecord) -> OtlpSpan:
    """A request to a language model as a span."""
    usage, target = record.usage, record.target
    operation = _OPERATIONS.get(record.api, "chat")
    values: dict[str, object] = {
        "operation": operation,
        "provider": target.provider if target is not None else "",
        "asked_model": record.model,
        "model": target.model if target is not None else "",
        "id": record.id,
        "finish": [record.finish_reason] if record.finish_reason else [],
        "input": usage.prompt,
        "output": usage.completion,
        "cached": usage.cached,
        "cache_write": usage.cache_write,
        "reasoning": usage.reasoning,
        "first_chunk": record.ttft_us / 1e6,
        "error": record.error_kind,
        "cache": record.cache,
        "similarity": "" if record.similarity is None else record.similarity,
    }
    return OtlpSpan(
        record.trace[0] or record.id.ljust(32, "0")[:32],
        record.id[:16].ljust(16, "0"),
        record.trace[1],
        f"{operation} {record.model}",
        CLIENT,
        record.at_ns,
        record.at_ns + record.total_us * 1000,
        {NAMES[key]: value for key, value in values.items() if value != ""},
        (record.error_kind or "error") if record.status == "error" else "",
    )


class OtlpSpans(Generic[Record]):
    """A sink that posts spans to ``{endpoint}/v1/traces``.

    Args:
        endpoint: the collector's address, as in ``OTEL_EXPORTER_OTLP_ENDPOINT``.
        service: ``service.name`` of the resource.
        headers: further headers, as in ``OTEL_EXPORTER_OTLP_HEADERS``.
        spans: makes the spans of a record.
        scope: what has made them.
        told: told that the collector does not take all spans, and why; once in a while.
        rejected: told of how many, each time.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        endpoint: str,
        service: str,
        headers: Mapping[str, str] | None = None,
        *,
        spans: Callable[[Record], Sequence[OtlpSpan]],
        scope: str,
        told: Callable[[str], None] = lambda line: None,
        rejected: Callable[[int], None] = lambda spans: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._told = told
        self._rejected = rejected
        self._clock = clock
        self._told_at = float("-inf")
        self._untold = 0
        self._spans = spans
        self._service = service
        self._scope = scope
        self._url = endpoint.rstrip("/") + "/v1/traces"
        self._headers = {"content-type": "application/x-protobuf", **(headers or {})}

    def write(self, records: Sequence[Record]) -> None:
        """Post a batch.

        Raises:
            ServiceError: MS-4060, the collector does not take it.
        """
        spans = (span for record in records for span in self._spans(record))
        body = otlp_request(self._service, self._scope, spans)
        request = urllib.request.Request(self._url, body, self._headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
                self._look(answer.read(_ANSWER_BYTES))
        except (urllib.error.URLError, OSError) as error:
            host = urllib.parse.urlsplit(self._url).netloc
            raise ServiceError(
                "the OpenTelemetry collector does not take spans",
                code="MS-4060",
                why=f"{host}: {error}",
                fix="start the collector, or leave its endpoint out",
            ) from error

    def _look(self, answer: bytes) -> None:
        """Count and tell of what the collector has not taken although it has answered; it is not sent again."""
        spans, why = rejected_of(answer)
        if spans:
            self._rejected(spans)
            self._untold += spans
        now = self._clock()
        if not (spans or why) or now - self._told_at < _AGAIN_SECONDS:
            return
        what = (
            f"the OpenTelemetry collector has rejected {self._untold} spans" if self._untold else "the collector warns"
        )
        self._told(f"{what}: {why[:_WHY_CHARACTERS] or 'it does not say why'}")
        self._told_at, self._untold = now, 0

    def close(self) -> None:
        """Nothing is open."""
