"""Where the records of requests to language models go."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from mainspring.choose.services import Services
from mainspring.llm.otlp import OtlpSpans
from mainspring.llm.record import Recorder, Sink
from mainspring.llm.store import CallStore
from mainspring.llm.values import Key

__all__ = ["calls_of", "recorder_of", "spent_of"]


def calls_of(services: Services) -> Path:
    """The file of a project's records."""
    return services.state / "log" / "calls.db"


def spent_of(calls: Path, keys: Iterable[Key]) -> dict[str, int]:
    """Micro-units that keys with a budget have spent in the period that runs, by account: what a restart must know.

    Args:
        calls: the file of the records.
        keys: of the gateway.

    Raises:
        StoreError: MS-4175, the file cannot be opened.
    """
    periods = {f"key:{key.id}": key.limits.period_s for key in keys if key.limits.money_micro is not None}
    if not periods:
        return {}
    with closing(CallStore(calls, random.random)) as store:
        return store.spent(periods)


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
