"""Where the records of requests to language models go."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from mainspring.choose.services import Services
from mainspring.llm.otlp import OtlpSpans
from mainspring.llm.record import Recorder, Sink
from mainspring.llm.store import CallStore

__all__ = ["recorder_of"]


def recorder_of(services: Services, calls: Path, app: str, told: Callable[[str], None]) -> Recorder:
    """A recorder into a file, and to an OpenTelemetry collector where one is configured.

    Args:
        services: the project's ports.
        calls: the file.
        app: the app's name, which spans call their service.
        told: told of faults.

    Raises:
        ConfigError: MS-3007, the collector's token is not there.
    """
    sinks: list[Sink] = [CallStore(calls, random.random)]
    if endpoint := services.settings.secret("telemetry.otlp"):
        token = services.settings.secret("telemetry.otlp_token")
        sinks.append(OtlpSpans(endpoint, app, {"authorization": f"Bearer {token}"} if token else {}))
    return Recorder(sinks, told)
