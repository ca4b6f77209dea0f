"""Where the records of requests go: those to language models, and spans of all."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from mainspring.choose.services import Services
from mainspring.llm.otlp import OtlpSpans, span_of
from mainspring.llm.otlp_messages import INTERNAL, SERVER, OtlpSpan
from mainspring.llm.record import CallRecord, Recorder, Sink
from mainspring.llm.store import CallStore
from mainspring.serving.tracing import RequestSpan

__all__ = ["calls_of", "recorder_of", "request_recorder", "request_spans", "spent_of"]


def calls_of(services: Services) -> Path:
    """The file of a project's records."""
    return services.state / "log" / "calls.db"


def spent_of(calls: Path, periods: Mapping[str, float], shown: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Micro-units that accounts have spent in the period that runs, by account: what a restart must know.

    Args:
        calls: the file of the records.
        periods: the length of each account's period in seconds.
        shown: as `CallStore.spent` takes it.

    Raises:
        StoreError: MS-4175, the file cannot be opened.
    """
    if not periods:
        return {}
    with closing(CallStore(calls, random.random)) as store:
        return store.spent(periods, shown)


def recorder_of(
    services: Services,
    calls: Path,
    app: str,
    told: Callable[[str], None],
    rejected: Callable[[int], None] = lambda spans: None,
) -> Recorder[CallRecord]:
    """A recorder into a file, and to an OpenTelemetry collector where one is configured.

    Args:
        services: the project's ports.
        calls: the file.
        app: the app's name, which spans call their service.
        told: told of faults.
        rejected: told of spans that the collector has not taken.

    Raises:
        ConfigError: MS-3007, the collector's token is not there.
    """
    sinks: list[Sink[CallRecord]] = [CallStore(calls, random.random)]
    if (collector := _collector_of(services)) is not None:
        url, headers = collector
        sinks.append(OtlpSpans(url, app, headers, spans=_one, scope="mainspring.llm", told=told, rejected=rejected))
    return Recorder(sinks, told)


def _one(record: CallRecord) -> list[OtlpSpan]:
    return [span_of(record)]


def request_recorder(
    services: Services,
    app: str,
    told: Callable[[str], None],
    rejected: Callable[[int], None] = lambda spans: None,
) -> Recorder[RequestSpan] | None:
    """A recorder of the spans of all requests, where a collector is configured.

    Args:
        services: the project's ports.
        app: the app's name, which spans call their service.
        told: told of faults.
        rejected: told of spans that the collector has not taken.

    Raises:
        ConfigError: MS-3007, the collector's token is not there.
    """
    collector = _collector_of(services)
    if collector is None:
        return None
    url, headers = collector
    sink = OtlpSpans(url, app, headers, spans=request_spans, scope="mainspring.server", told=told, rejected=rejected)
    return Recorder([sink], told, what="spans")


def request_spans(record: RequestSpan) -> list[OtlpSpan]:
    """A request, and what it spent its time on, as spans."""
    found = [
        OtlpSpan(
            record.trace,
            record.span,
            record.parent,
            record.name,
            SERVER,
            record.begun,
            record.ended,
            record.facts,
            record.fault,
        )
    ]
    for number, (name, begun, ended, facts) in enumerate(record.parts, 1):
        own = f"{(int(record.span, 16) + number) % (1 << 64) or 1:016x}"
        found.append(OtlpSpan(record.trace, own, record.span, name, INTERNAL, begun, ended, facts))
    return found


def _collector_of(services: Services) -> tuple[str, Mapping[str, str]] | None:
    """The collector's address and the headers that it wants; None where none is configured."""
    settings = services.settings
    endpoint = settings.secret("telemetry.otlp")
    if not endpoint:
        return None
    token = settings.secret("telemetry.otlp_token")
    return endpoint, {"authorization": f"Bearer {token}"} if token else {}
